"""How many lines of batches may a router have in flight for each model?

As many as its engines run at once, and a few that wait: no more, since what waits in the lane's queue can't be put into
a better order, takes memory, and stands before the requests of the same tier that clients send.
"""

from math import ceil

import routing
from deployments.desks import Desk, Desks

SPARE = 16
"""Lines beside those that engines run, so that a free place is taken at once; also those that wake a model."""
WAITING = 64
"""Of tier batch, in a model's queues: while so many wait there, no line comes in."""
BYTES = 64 << 20
"""Of all lines in flight."""


class Places:
    """Those of one router, shared evenly by the batches that have lines for a model."""

    def __init__(self, desks: Desks) -> None:
        self._desks = desks
        self._flying: dict[str, dict[str, int]] = {}
        """By model: the batches that ask it, and the lines that each has in flight."""
        self._bytes = 0

    def model(self, name: str | None) -> str:
        """The model that a line is for. One that is not here is asked nevertheless: its route says so."""
        return next(iter(self._desks)) if name is None and len(self._desks) == 1 else name or ""

    def join(self, model: str, batch: str) -> None:
        """A batch has lines for it."""
        self._flying.setdefault(model, {}).setdefault(batch, 0)

    def leave(self, model: str, batch: str) -> None:
        """It has none any more."""
        self._flying.get(model, {}).pop(batch, None)

    def room(self, model: str, batch: str) -> int:
        """Lines that a batch may send now."""
        flying = self._flying[model]
        if self._bytes >= BYTES:
            return 0
        if (desk := self._desks.get(model)) is None:
            return max(0, SPARE - flying[batch])
        share = ceil(_capacity(desk) / len(flying)) - flying[batch]
        waiting = sum(lane.queued_in(routing.Tier.BATCH) for lane in desk.lanes)
        return max(0, min(share, WAITING - waiting))

    def enter(self, model: str, batch: str, size_bytes: int) -> None:
        """A line is sent."""
        self._flying[model][batch] += 1
        self._bytes += size_bytes

    def exit(self, model: str, batch: str, size_bytes: int) -> None:
        """Something came of it."""
        self._bytes -= size_bytes
        if batch in (flying := self._flying[model]):
            flying[batch] -= 1


def _capacity(desk: Desk) -> int:
    slots = sum(one.load.slots for lane in desk.lanes for one in lane.replicas.values() if not one.load.draining)
    return slots + SPARE
