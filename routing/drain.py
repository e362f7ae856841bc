"""How fast does the queue empty?"""

from collections.abc import Iterable
from dataclasses import dataclass

WINDOW_S = 10.0
"""Only what left the queue in the last so many seconds counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Departure:
    """A request that left the queue for a replica."""

    at_s: float
    prompt_tokens: int


def drain_tokens_per_s(departures: Iterable[Departure], now_s: float) -> float:
    """Prompt tokens that left per second, since the first departure of the window; 0 when none left.

    A second is the shortest time taken: one departure a moment ago says nothing about a rate.
    """
    recent = [departure for departure in departures if now_s - departure.at_s <= WINDOW_S]
    if not recent:
        return 0.0
    since_s = max(1.0, now_s - min(departure.at_s for departure in recent))
    return sum(departure.prompt_tokens for departure in recent) / since_s
