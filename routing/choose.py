"""Which replica would give a request its first token soonest?"""

from collections.abc import Sequence

from routing.replica import Replica
from routing.request import Request


def choose(request: Request, replicas: Sequence[Replica]) -> str | None:
    """The id of the replica with credit and the least predicted seconds to first token; None without any.

    Predicted seconds are (queued_tokens + prompt_tokens) / prefill_tokens_per_s. A replica whose rate is
    unknown is taken to be as slow as the slowest known one; while none is known, queued tokens alone decide.
    Equal predictions go to the replica with the fewest requests running, then to the lowest id.
    """
    candidates = [replica for replica in replicas if replica.has_credit]
    if not candidates:
        return None
    known = [replica.prefill_tokens_per_s for replica in candidates if replica.prefill_tokens_per_s > 0]
    slowest_tokens_per_s = min(known, default=1.0)

    def cost(replica: Replica) -> tuple[float, int, str]:
        tokens_per_s = replica.prefill_tokens_per_s
        if tokens_per_s <= 0:
            tokens_per_s = slowest_tokens_per_s
        return (replica.queued_tokens + request.prompt_tokens) / tokens_per_s, replica.running, replica.id

    return min(candidates, key=cost).id
