"""How much may a tenant still have, in any minute or of a budget, and when is there more?

Amounts are lent, and count as had until they are given back: who borrows and is lost never makes a limit be exceeded.
"""

from collections import deque
from datetime import UTC, datetime
from enum import StrEnum
from math import inf

MINUTE_S = 60.0
SLOT_S = 0.1
"""Amounts lent within so long are one: a minute is exact to that."""
DAY_S = 24 * 3600


class Period(StrEnum):
    """What a budget is for. Days and months are those of UTC."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


class Minute:
    """At most so much in any 60 s."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._slots: deque[tuple[int, float]] = deque()
        self._lent = 0.0

    def left(self, now_s: float) -> float:
        """What can be lent now."""
        while self._slots and _over_s(self._slots[0][0]) <= now_s:
            self._lent -= self._slots.popleft()[1]
        if not self._slots:
            self._lent = 0.0  # what rounding left
        return max(0.0, self.limit - self._lent)

    def until_s(self, now_s: float) -> float:
        """When what is lent now is nobody's any more."""
        return now_s + MINUTE_S

    def move(self, amount: float, now_s: float) -> None:
        """So much more is lent; below 0: given back."""
        if amount >= 0:
            self._lend(amount, now_s)
        else:
            self._give_back(-amount, now_s)

    def lent(self, now_s: float) -> list[tuple[float, float]]:
        """What counts now: when, and how much. Who lends the same anew is as this is."""
        self.left(now_s)
        return [((slot + 0.5) * SLOT_S, amount) for slot, amount in self._slots]

    def wait_s(self, amount: float, now_s: float) -> float:
        """Until so much can be lent, if nobody else comes; inf: never, it is above the limit."""
        if amount > self.limit:
            return inf
        free, over_s = self.left(now_s), now_s
        for slot, lent in self._slots:
            if free >= amount:
                break
            free, over_s = free + lent, _over_s(slot)
        return max(0.0, over_s - now_s)

    def _lend(self, amount: float, now_s: float) -> None:
        slot = int(now_s / SLOT_S)
        if self._slots and self._slots[-1][0] >= slot:
            slot, before = self._slots.pop()
            self._slots.append((slot, before + amount))
        else:
            self._slots.append((slot, amount))
        self._lent += amount

    def _give_back(self, amount: float, now_s: float) -> None:
        """It was not needed. The oldest of what was lent is forgotten, whichever it was: what stays counts for longer
        rather than shorter.
        """
        self.left(now_s)
        while amount > 0 and self._slots:
            slot, lent = self._slots.popleft()
            taken = min(lent, amount)
            self._lent -= taken
            amount -= taken
            if taken < lent:
                self._slots.appendleft((slot, lent - taken))


class Budget:
    """At most so much in a period."""

    def __init__(self, limit: float, period: Period, lent: float = 0.0, begin_s: float | None = None) -> None:
        """`lent` since the begin of a period, as far as that is the period of the first question."""
        self.limit, self._period = limit, period
        self.lent, self.begin_s = lent, begin_s

    def left(self, now_s: float) -> float:
        """What can be lent now."""
        begin_s, _ = bounds_s(self._period, now_s)
        if begin_s != self.begin_s:
            self.lent, self.begin_s = 0.0, begin_s
        return max(0.0, self.limit - self.lent)

    def until_s(self, now_s: float) -> float:
        """When what is lent now is nobody's any more."""
        return bounds_s(self._period, now_s)[1]

    def move(self, amount: float, now_s: float) -> None:
        """So much more is lent; below 0: it was lent in this period, and is given back."""
        self.left(now_s)
        self.lent = max(0.0, self.lent + amount)

    def wait_s(self, amount: float, now_s: float) -> float:
        """Until so much can be lent; inf: never."""
        if amount <= self.left(now_s):
            return 0.0
        return self.until_s(now_s) - now_s if amount <= self.limit else inf


def counts(period: Period | None, then_s: float, now_s: float) -> bool:
    """Whether what was lent then does now. None: of a minute."""
    if period is None:
        return now_s - then_s < MINUTE_S
    return bounds_s(period, then_s) == bounds_s(period, now_s)


def bounds_s(period: Period, now_s: float) -> tuple[float, float]:
    """Begin and end of the period that it is, in seconds since 1970."""
    if period is Period.TOTAL:
        return 0.0, inf
    if period is Period.DAY:
        begin_s = now_s // DAY_S * DAY_S
        return begin_s, begin_s + DAY_S
    now = datetime.fromtimestamp(now_s, UTC)
    begin = datetime(now.year, now.month, 1, tzinfo=UTC)
    end = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    return begin.timestamp(), end.timestamp()


def _over_s(slot: int) -> float:
    return (slot + 1) * SLOT_S + MINUTE_S
