"""What must the scaler remember from one decision to the next?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoscaling.capacity import Capacity, measured
from autoscaling.fleet import Fleet

STARTUP_S = 60.0
"""Taken for the time that a replica takes to start until one was seen to."""
DRAIN_S = 60.0
"""Within so many seconds, or a start's where that takes longer, what waits should be gone."""
STANDING_SHARE = 0.25
STANDING_LEAST_S, STANDING_MOST_S = 2.0, 15.0
"""A queue counts as standing when it did not empty for a quarter of a start, within these bounds: what clears by
itself sooner needs no replica that comes later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How many replicas the load of one moment asked for."""

    at_s: float
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What waited at one moment, in routers and in engines."""

    at_s: float
    requests: float
    tokens: float
    """Of their prompts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Recent wishes, what a replica can do and how it starts, and what was missed. Empty at the start, after a loss."""

    wishes: tuple[Wish, ...] = ()
    """Oldest first, falling: one is dropped when a later one is as large, as it can't be the maximum then."""
    capacity: Capacity | None = None
    """Of a replica, as last heard; None before the first replica spoke."""
    asked_s: tuple[float, ...] = ()
    """When each replica that is starting was asked for, oldest first."""
    running: int = 0
    """Replicas that ran at the last decision."""
    started_s: float | None = None
    """Seconds that replicas took to start, the last ones weighing most; None before the first."""
    backlogs: tuple[Backlog, ...] = ()
    """Oldest first, of the last seconds."""
    correction: float = 1.0
    """By which the need is multiplied, since more or less was missed than allowed."""
    decided_s: float | None = None
    """When the last decision was made."""

    @property
    def startup_s(self) -> float:
        """What a start takes, as far as known."""
        return STARTUP_S if self.started_s is None else self.started_s

    @property
    def standing_s(self) -> float:
        """For how long a queue must not have emptied to count as standing."""
        return min(STANDING_MOST_S, max(STANDING_LEAST_S, STANDING_SHARE * self.startup_s))

    @property
    def drain_s(self) -> float:
        """Within which what waits should be served."""
        return max(DRAIN_S, self.startup_s)

    @property
    def largest_wish(self) -> Wish:
        """The maximum over the window. Raises IndexError on an empty memory."""
        return self.wishes[0]

    def seeing(self, fleet: Fleet, correction: float) -> "Memory":
        """Takes in what the fleet shows: capacity, replicas that began to run, what waits."""
        asked_s, started_s = self._starts(fleet)
        now_s, heard, past = fleet.now_s, fleet.heard, self.backlogs
        if past and past[-1].at_s > now_s:
            past = ()
        # One beyond the window tells that the window is covered.
        first, begin_s = 0, now_s - self.standing_s
        while first + 1 < len(past) and past[first + 1].at_s <= begin_s:
            first += 1
        now = Backlog(
            at_s=now_s,
            requests=fleet.queued_requests + sum([load.waiting_requests for load in heard]),
            tokens=fleet.queued_tokens + sum([load.waiting_tokens for load in heard]),
        )
        return Memory(
            wishes=self.wishes,
            capacity=measured(heard, self.capacity),
            asked_s=asked_s,
            running=len(fleet.replicas),
            started_s=started_s,
            backlogs=(*past[first:], now),
            correction=correction,
            decided_s=now_s,
        )

    def standing(self) -> Backlog:
        """The least that waited at any moment of the window; nothing while that is not covered."""
        now = self.backlogs[-1]
        if not now.requests:
            return now
        if self.backlogs[0].at_s > now.at_s - self.standing_s:
            return Backlog(at_s=now.at_s, requests=0, tokens=0)
        return Backlog(
            at_s=now.at_s,
            requests=min([one.requests for one in self.backlogs]),
            tokens=min([one.tokens for one in self.backlogs]),
        )

    def with_wish(self, wish: Wish, *, present: int, hold_s: float) -> "Memory":
        """Takes a wish in and lets go of those that are `hold_s` old.

        Without a past, or with one from the future (the clock was set back), the replicas present stand for
        it: a lost memory never shrinks a fleet at once.
        """
        past = self.wishes
        if not past or past[-1].at_s > wish.at_s:
            past = (Wish(at_s=wish.at_s, replicas=present),)
        kept = tuple([old for old in past if old.at_s > wish.at_s - hold_s and old.replicas > wish.replicas])
        return Memory(  # not by replace(), which takes thrice as long
            wishes=(*kept, wish),
            capacity=self.capacity,
            asked_s=self.asked_s,
            running=self.running,
            started_s=self.started_s,
            backlogs=self.backlogs,
            correction=self.correction,
            decided_s=self.decided_s,
        )

    def _starts(self, fleet: Fleet) -> tuple[tuple[float, ...], float | None]:
        """Who is still starting, and how long the starts took that just ended.

        Serve tells neither which replica started nor when it was asked for: those asked for first start first, and
        what is no longer wanted is what was asked for last.
        """
        asked_s, started_s = self.asked_s, self.started_s
        if asked_s and asked_s[-1] > fleet.now_s:
            asked_s = (fleet.now_s,) * len(asked_s)
        begun = max(0, len(fleet.replicas) - self.running)
        for at_s in asked_s[:begun]:
            took_s = fleet.now_s - at_s
            started_s = took_s if started_s is None else (started_s + took_s) / 2
        still = asked_s[begun:][: fleet.starting]
        return still + (fleet.now_s,) * (fleet.starting - len(still)), started_s

    def to_json(self) -> dict[str, Any]:
        """As values that json can write."""
        return {
            "wishes": [[wish.at_s, wish.replicas] for wish in self.wishes],
            "capacity": self.capacity and self.capacity.to_json(),
            "asked_s": list(self.asked_s),
            "running": self.running,
            "started_s": self.started_s,
            "backlogs": [[one.at_s, one.requests, one.tokens] for one in self.backlogs],
            "correction": self.correction,
            "decided_s": self.decided_s,
        }

    @staticmethod
    def from_json(saved: Mapping[str, Any]) -> "Memory":
        """What `to_json` gave. Raises KeyError, TypeError or ValueError when it is something else."""
        capacity, started_s, decided_s = saved["capacity"], saved["started_s"], saved["decided_s"]
        return Memory(
            wishes=tuple(Wish(at_s=float(at_s), replicas=int(replicas)) for at_s, replicas in saved["wishes"]),
            capacity=None if capacity is None else Capacity.from_json(capacity),
            asked_s=tuple(map(float, saved["asked_s"])),
            running=int(saved["running"]),
            started_s=None if started_s is None else float(started_s),
            backlogs=tuple(
                Backlog(at_s=float(at_s), requests=float(requests), tokens=float(tokens))
                for at_s, requests, tokens in saved["backlogs"]
            ),
            correction=float(saved["correction"]),
            decided_s=None if decided_s is None else float(decided_s),
        )
