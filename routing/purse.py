"""May a request of a tenant be let in by what its router was lent, and what does it cost in the end?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from routing.ledger import Limit, Loan

AHEAD_S = 0.25
"""So much of what was used lately is borrowed beyond need."""
IDLE_S = 1.0
"""What was not used for so long is given back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of a request that comes."""

    likely_tokens: int
    """Prompt and answer: what a minute is charged until it is known."""
    most_tokens: int
    """What a budget must cover."""
    most_gpu_s: float
    """The same in device-seconds, by the dearest tokens that were seen."""

    def of(self, limit: Limit) -> float:
        match limit.unit:
            case "requests":
                return 1.0
            case "tokens":
                return float(self.likely_tokens if limit.period is None else self.most_tokens)
            case _:
                return self.most_gpu_s


@dataclass(slots=True)
class Reserved:
    """Of one limit, for one request."""

    amount: float
    until_s: float
    """After that it is of a minute, or a period, that is over."""
    used: float = 0.0
    held: float = field(init=False)
    """Until it is over."""

    def __post_init__(self) -> None:
        self.held = self.amount


class Purse:
    """What one router holds of one tenant's limits."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self.limits = tuple(limits)
        self.had = {limit.name: 0.0 for limit in limits}
        """By name, what was lent in all, less what was given back; more by what was used beyond that."""
        self._free: dict[str, float] = {}
        self._until_s: dict[str, float] = {}
        self._back: dict[str, float] = {}
        """To be given back: of minutes, what was reserved and not used. It is of the time when it was reserved."""
        self._used: dict[str, float] = {}
        self._since_s: float | None = None
        self._held: dict[tuple[str, float], float] = {}
        """Of budgets, by name and end of the period."""

    def held(self, name: str) -> float:
        """Of a budget as it is now, by requests that are not over."""
        return self._held.get((name, self._until_s.get(name, inf)), 0.0)

    def spent(self, now_s: float) -> dict[str, float]:
        """Of budgets, by name: of what was had, what is neither here nor held by a request, nor was when its period
        ended.
        """
        self._expire(now_s)
        names = [limit.name for limit in self.limits if limit.period is not None]
        return {name: self.had[name] - self._free.get(name, 0.0) - self.held(name) for name in names}

    def lacks(self, cost: Cost, now_s: float) -> dict[str, float]:
        """What is to be borrowed before a request of this cost may come in, by name; nothing: it may."""
        self._expire(now_s)
        lacking = {limit.name: cost.of(limit) - self._free.get(limit.name, 0.0) for limit in self.limits}
        return {name: amount for name, amount in lacking.items() if amount > 0}

    def ahead(self, now_s: float) -> dict[str, float]:
        """What would soon be needed, by what was used lately."""
        if self._since_s is None or now_s <= self._since_s:
            return {}
        return {name: used * min(1.0, AHEAD_S / (now_s - self._since_s)) for name, used in self._used.items()}

    def fill(self, loan: Loan) -> None:
        """It was lent."""
        for limit in self.limits:
            name, amount = limit.name, loan.amounts.get(limit.name)
            if amount is None:
                continue
            if limit.period is not None and loan.until_s[name] != (until_s := self._until_s.get(name, inf)):
                self._end(name, until_s)
            self.had[name] += amount
            self._free[name] = self._free.get(name, 0.0) + amount
            self._until_s[name] = loan.until_s[name]

    def reserve(self, cost: Cost, now_s: float) -> dict[str, Reserved]:
        """Takes it out, for a request that comes in."""
        self._since_s = now_s if self._since_s is None else self._since_s
        taken = {}
        for limit in self.limits:
            name, amount = limit.name, cost.of(limit)
            until_s = self._until_s.get(name, inf)
            self._free[name] = self._free.get(name, 0.0) - amount
            self._used[name] = self._used.get(name, 0.0) + amount
            if limit.period is not None:
                self._held[name, until_s] = self._held.get((name, until_s), 0.0) + amount
            taken[name] = Reserved(amount, until_s)
        return taken

    def settle(self, reserved: Mapping[str, Reserved], now_s: float) -> None:
        """The request is over, and what it used is known."""
        self._expire(now_s)
        for limit in self.limits:
            mine = reserved[limit.name]
            unused = mine.amount - mine.used
            if limit.period is not None and mine.until_s > now_s:
                self._held[limit.name, mine.until_s] -= mine.held
            mine.amount, mine.held = mine.used, 0.0
            if mine.until_s <= now_s:
                continue
            held = self._back if limit.period is None else self._free
            held[limit.name] = held.get(limit.name, 0.0) + unused

    def give_back(self, now_s: float) -> dict[str, float]:
        """What is not needed is no longer here; below 0: what was used beyond what was lent. `had` says so.

        Of minutes it says how much that is, by name.
        """
        self._expire(now_s)
        back, self._back = self._back, {}
        idle = self._since_s is None or now_s - self._since_s > IDLE_S
        for name, free in list(self._free.items()):
            if free < 0 or (idle and not self._used.get(name)):
                back[name] = back.get(name, 0.0) + self._free.pop(name)
        if idle:
            self._used, self._since_s = {}, now_s
        for name, amount in back.items():
            self.had[name] -= amount
        return {limit.name: back[limit.name] for limit in self.limits if limit.period is None and limit.name in back}

    def lose(self, back: Mapping[str, float]) -> None:
        """What was given back was not heard in time, and is lost."""
        for name, amount in back.items():
            self.had[name] += max(0.0, amount)

    def _expire(self, now_s: float) -> None:
        for name, until_s in list(self._until_s.items()):
            if until_s <= now_s:
                del self._until_s[name]
                self._end(name, until_s)

    def _end(self, name: str, until_s: float) -> None:
        """What is here of it is of a minute, or a period, that is over."""
        self._free.pop(name, None)
        self._back.pop(name, None)
        self._held.pop((name, until_s), None)
