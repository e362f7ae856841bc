"""How many may be inside, and when will there be a place for one more?

Who is refused gets a place in a line that is not kept open: a time to come back, at which a place is kept for it. A
newcomer is let in only if nobody whose time has come would lose a place by that. So the time told is not a guess that
the next newcomer makes wrong; and no place stays empty, since a time is told only as places become free.
"""

from collections import OrderedDict
from collections.abc import Hashable
from math import ceil

from routing.drain import Drain
from routing.request import Tier

RETRY_UNKNOWN_S = 60
"""Told while no rate is known: about the start of an engine."""
RETRY_MOST_S = 3600
"""A forecast beyond an hour says nothing."""
RESERVED_S = 1.0
"""A place is kept free for so long after the time told."""
GRACE = 0.25
"""Who comes back later than told, by no more than this share of the time or RESERVED_S, is still let in first."""
EXTRA = 1.25
"""That is, as far as this times the limit, where fewer left than was foretold."""
EARLY = 0.75
"""Who comes back earlier than told is let in only below this times the limit: trying all the time gains nothing."""
MOST_LINE = 1 << 14
"""Who is refused while so many stand in line is told a time, and no place is kept."""
SHOWS = 50
"""Places that came due over which it is learnt how many come back."""


def retry_after_s(seconds: float) -> int:
    """As the header wants it: whole seconds, from one on."""
    return ceil(min(max(1.0, seconds), RETRY_MOST_S))


class Gate:
    """A limit on how many are inside, and the line before it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.drain = Drain()
        self._due: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()
        """By who was refused: when to come back, and when the place is lost."""
        self._shows = 1.0
        """Part of those in line that come back."""

    def ask(self, who: Hashable, now_s: float) -> int | None:
        """None: come in; else seconds to wait. `who` says the same thing when the same request comes again."""
        self._expire(now_s)
        inside = self.drain.inside
        due_s, _ = self._due.get(who, (None, 0.0))
        if due_s is not None and now_s >= due_s:
            del self._due[who]
            self._learn(1.0)
            if inside < EXTRA * self.limit:
                return None
        elif inside + self._reserved(now_s) < (self.limit if due_s is None else EARLY * self.limit):
            self._due.pop(who, None)
            return None
        elif due_s is not None:
            return max(1, ceil(due_s - now_s))
        return self._line_up(who, now_s)

    def _line_up(self, who: Hashable, now_s: float) -> int:
        rate_per_s = self.drain.requests_per_s(now_s)
        if not rate_per_s:
            return RETRY_UNKNOWN_S
        places = self.drain.inside + 1 - self.limit + self._shows * len(self._due)
        wait_s = retry_after_s(places / rate_per_s)
        if len(self._due) < MOST_LINE:
            self._due[who] = (now_s + wait_s, now_s + wait_s + max(RESERVED_S, GRACE * wait_s))
        return wait_s

    def _reserved(self, now_s: float) -> int:
        """Places kept for those whose time has just come; never most of them, lest the engines run dry."""
        count, most = 0, self.limit // 2
        for due_s, _ in self._due.values():
            if due_s > now_s or count >= most:
                break
            count += due_s > now_s - RESERVED_S
        return ceil(self._shows * count)

    def _expire(self, now_s: float) -> None:
        while self._due and next(iter(self._due.values()))[1] < now_s:
            self._due.popitem(last=False)
            self._learn(0.0)

    def _learn(self, came: float) -> None:
        self._shows += (came - self._shows) / SHOWS


class TierGates:
    """A limit on what waits. For each tier only those count that are as urgent: no flood of tier batch keeps anybody
    out who goes before it.
    """

    def __init__(self, limit: int) -> None:
        self._gates = tuple(Gate(limit) for _ in Tier)

    @property
    def drain(self) -> Drain:
        """Of everything that waits."""
        return self._gates[-1].drain

    def of(self, tier: Tier) -> Gate:
        """That a request of this tier has to pass."""
        return self._gates[tier]

    def enter(self, tier: Tier, now_s: float) -> None:
        """A request begins to wait."""
        for gate in self._gates[tier:]:
            gate.drain.enter(now_s)

    def leave(self, tier: Tier, now_s: float, tokens: int) -> None:
        """A request, of so many prompt tokens, waits no longer."""
        for gate in self._gates[tier:]:
            gate.drain.leave(now_s, tokens)
