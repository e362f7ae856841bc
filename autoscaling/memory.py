"""What must the scaler remember from one decision to the next?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How many replicas the load of one moment asked for."""

    at_s: float
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Recent wishes and what a replica can do. Empty at the start and after a loss."""

    wishes: tuple[Wish, ...] = ()
    """Oldest first, falling: one is dropped when a later one is as large, as it can't be the maximum then."""
    slots: float | None = None
    """Request slots of a replica, as last heard; None before the first replica spoke."""

    def to_json(self) -> dict[str, Any]:
        """As values that json can write."""
        return {"wishes": [[wish.at_s, wish.replicas] for wish in self.wishes], "slots": self.slots}

    @staticmethod
    def from_json(saved: Mapping[str, Any]) -> "Memory":
        """What `to_json` gave. Raises KeyError, TypeError or ValueError when it is something else."""
        wishes = tuple(Wish(at_s=float(at_s), replicas=int(replicas)) for at_s, replicas in saved["wishes"])
        slots = saved["slots"]
        return Memory(wishes=wishes, slots=None if slots is None else float(slots))

    def with_wish(self, wish: Wish, *, present: int, hold_s: float) -> "Memory":
        """Takes a wish in and lets go of those that are `hold_s` old.

        Without a past, or with one from the future (the clock was set back), the replicas present stand for
        it: a lost memory never shrinks a fleet at once.
        """
        past = self.wishes
        if not past or past[-1].at_s > wish.at_s:
            past = (Wish(at_s=wish.at_s, replicas=present),)
        kept = tuple(old for old in past if old.at_s > wish.at_s - hold_s and old.replicas > wish.replicas)
        return Memory(wishes=(*kept, wish), slots=self.slots)

    @property
    def largest_wish(self) -> Wish:
        """The maximum over the window. Raises IndexError on an empty memory."""
        return self.wishes[0]
