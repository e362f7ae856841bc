"""How many places does tier batch leave free? As many as it takes that few of those that can't wait do.

Learnt, and not reckoned: how many come at once, and how soon places become free, follow from lengths that nobody knows.
"""

from dataclasses import dataclass

LATE_SHARE = 0.02
"""Of those that can't wait, so many may find no place."""
MORE = 0.5
"""Places, for each that found none. Each that found one takes as much less that both are even where LATE_SHARE find
none: Robbins and Monro's search for a quantile (1951)."""
FIRST_SHARE = 0.1
"""Of all places, before anything was learnt."""
MOST_SHARE = 0.5
LEAST = 1.0
"""Who comes after a lull finds a place, unless there are few."""
SOON_S = 0.01
"""Who left sooner than this found a place."""
HALF_LIFE_S = 120.0
"""Of what was learnt, while nobody comes."""


@dataclass(slots=True)
class Spare:
    """Of one queue."""

    learnt: float | None = None
    """Places; None before anybody came."""
    at_s: float = 0.0

    def came(self, waited_s: float, *, free: int, places: int, now_s: float) -> None:
        """One that can't wait leaves for a replica, while tier batch runs too; `free`: before it takes its place.

        Where more is free than is left for its like, it waited for something else.
        """
        found_none = waited_s > SOON_S and free <= max(1, self.places(places, now_s))
        step = MORE if found_none else -MORE * LATE_SHARE / (1 - LATE_SHARE)
        self.learnt, self.at_s = _within(self._faded(places, now_s) + step, places), now_s

    def places(self, places: int, now_s: float) -> int:
        """Of all places, those that tier batch leaves free."""
        return int(_within(self._faded(places, now_s), places))

    def _faded(self, places: int, now_s: float) -> float:
        if self.learnt is None:
            return FIRST_SHARE * places
        return self.learnt * 0.5 ** ((now_s - self.at_s) / HALF_LIFE_S)


def _within(value: float, places: int) -> float:
    return max(min(LEAST, FIRST_SHARE * places), min(value, MOST_SHARE * places))
