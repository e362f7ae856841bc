"""Which waiting requests leave together?"""

from collections.abc import Iterable, Sequence
from itertools import chain, islice

from routing.request import Request

LOOKAHEAD = 4
"""Requests looked at per free slot: bounds the work of a turn, and how far a prefix may jump the queue."""


def batch(waiting: Sequence[Request], *, slots: int, tokens: int) -> tuple[Request, ...]:
    """The requests that leave now: at most `slots`, with at most `tokens` prompt tokens together.

    Order: as they wait, but those that share a prefix follow the first of them, if they are among the next
    LOOKAHEAD * slots. The batch is the longest start of that order that fits. Its first request is always the
    head of the queue, and fits whenever slots and tokens are above 0, so that a prompt larger than any budget
    can't starve: it leaves alone.
    """
    if not waiting or slots <= 0 or tokens <= 0:
        return ()
    leaving: list[Request] = []
    for request in _by_prefix(islice(waiting, LOOKAHEAD * slots)):
        tokens -= request.prompt_tokens
        if len(leaving) == slots or (leaving and tokens < 0):
            break
        leaving.append(request)
    return tuple(leaving)


def _by_prefix(requests: Iterable[Request]) -> Iterable[Request]:
    groups: dict[object, list[Request]] = {}
    for request in requests:
        groups.setdefault(request.prefix or request, []).append(request)
    return chain.from_iterable(groups.values())
