"""Which replica would give a request its first token soonest, at the least cost to who waits behind it?"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from routing.replica import Replica
from routing.request import Request


@dataclass(frozen=True, slots=True)
class Choice:
    """A replica for a request."""

    replica: Replica
    seconds: float
    """Predicted until its first token."""
    cost_s: float
    """What it was chosen by."""
    read_tokens: int
    """Of the prompt, what must be read there."""


def choose(
    request: Request,
    replicas: Sequence[Replica],
    cached: Sequence[tuple[Replica, int]],
    random: Random,
    *,
    behind_s: float = 0.0,
) -> Choice | None:
    """The replica with the least cost; None without any.

    That is token_s * (load_tokens + uncached prompt tokens) and `behind_s` for each of those uncached tokens. `cached`
    are those of the replicas that are thought to have a part of the prompt cached, with its tokens. Equal costs are
    drawn by lot. Whether a replica has credit or is draining plays no part: the caller leaves out what it doesn't want.
    """
    if not replicas:
        return None
    prompt_tokens = request.prompt_tokens
    costs = [replica.token_s * (replica.load_tokens + prompt_tokens) for replica in replicas]
    least_s, best, read_tokens = min(costs), None, prompt_tokens
    cost_s = least_s + behind_s * prompt_tokens
    for replica, tokens in cached:
        left = read(request, tokens)
        cached_s = replica.token_s * (replica.load_tokens + left) + behind_s * left
        if cached_s < cost_s:
            cost_s, best, read_tokens = cached_s, replica, left
    if best is None:
        best = _draw(replicas, costs, least_s, random)
        read_tokens = next((read(request, tokens) for replica, tokens in cached if replica is best), prompt_tokens)
    return Choice(best, best.token_s * (best.work_tokens + read_tokens), cost_s, read_tokens)


def read(request: Request, cached_tokens: int) -> int:
    """Prompt tokens that are read where so many are cached: the last one always is."""
    return max(1, request.prompt_tokens - cached_tokens)


def _draw(replicas: Sequence[Replica], costs: list[float], least_s: float, random: Random) -> Replica:
    equal = costs.count(least_s)
    place = costs.index(least_s)
    for _ in range(random.randrange(equal) if equal > 1 else 0):
        place = costs.index(least_s, place + 1)
    return replicas[place]
