"""Which waiting requests go to which replicas in this turn?"""

from collections.abc import Sequence
from dataclasses import replace

from routing.batch import batch
from routing.choose import choose
from routing.replica import Replica
from routing.request import Request


def dispatch(waiting: Sequence[Request], replicas: Sequence[Replica]) -> tuple[tuple[Request, str], ...]:
    """Places a batch, charging each replica's credits and queue with what goes there.

    A request goes where its whole prompt fits into the token credit. The head of the queue may overdraw one
    replica when it fits nowhere, so that it can't starve. The first other request that fits nowhere ends the
    turn: nothing overtakes it. No credit, no work: the waiting requests are not looked at.
    """
    open_replicas = {replica.id: replica for replica in replicas if replica.has_credit}
    if not open_replicas:
        return ()
    slots = sum(replica.slots for replica in open_replicas.values())
    tokens = sum(replica.tokens for replica in open_replicas.values())
    placed: list[tuple[Request, str]] = []
    for request in batch(waiting, slots=slots, tokens=tokens):
        replica_id = _place(request, list(open_replicas.values()), overdraw=not placed)
        if replica_id is None:
            break
        open_replicas[replica_id] = _charge(open_replicas[replica_id], request)
        placed.append((request, replica_id))
    return tuple(placed)


def _place(request: Request, replicas: Sequence[Replica], *, overdraw: bool) -> str | None:
    fitting = [replica for replica in replicas if replica.tokens >= request.prompt_tokens]
    replica_id = choose(request, fitting)
    return choose(request, replicas) if replica_id is None and overdraw else replica_id


def _charge(replica: Replica, request: Request) -> Replica:
    return replace(
        replica,
        slots=replica.slots - 1,
        tokens=replica.tokens - request.prompt_tokens,
        queued_tokens=replica.queued_tokens + request.prompt_tokens,
    )
