"""Which variant of a model answers a request that came to this router, and what is told of them?"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import routing
from deployments.lane import Lane
from deployments.sender import Sender

HEADER = b"x-headrace-variant"
"""Names the variant that an answer is from."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where a request goes in."""

    lane: Lane
    variant: str
    """Whose lane it is; the model itself is one of its variants."""
    extra: tuple[tuple[bytes, bytes], ...] = ()
    """What its answer's headers say of that."""


@dataclass(frozen=True, slots=True)
class Served:
    """One variant; the model itself is one, of quality 1."""

    name: str
    quality: float
    lane: Lane


class Variants:
    """Those of one model, in one router."""

    def __init__(self, model: str, served: Sequence[Served], *, ttft_s: float) -> None:
        """`ttft_s`: seconds within which users should have their first token."""
        self.model, self.served = model, served
        self.chosen: Counter[tuple[str, routing.Why]] = Counter()
        """By variant and reason, requests that were sent there."""
        self._ladder = routing.Ladder(ttft_s)
        self._doors = {one.name: Door(one.lane, one.name, ((HEADER, one.name.encode()),)) for one in served}

    @property
    def lanes(self) -> list[Lane]:
        return [one.lane for one in self.served]

    def door(self, by: Sender, wish: routing.Wish) -> Door:
        """Where a request of this sender goes in now."""
        now = [
            routing.Variant(name=one.name, quality=one.quality, serves=one.lane.ready(), wait_s=one.lane.wait_s(by))
            for one in self.served
        ]
        chosen, why = self._ladder.choose(now, wish, now_s=monotonic())
        self.chosen[chosen.name, why] += 1
        return self._doors[chosen.name]

    def cards(self) -> list[dict[str, Any]]:
        """What /v1/models says of them."""
        return [{"name": one.name, "quality": one.quality, "ready": one.lane.ready()} for one in self.served]
