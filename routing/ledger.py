"""Who borrows how much of which tenant's limits?

One for a fleet: routers borrow for requests that come, a little ahead, and give back what was not needed. They say what
they have had in all, not what they give back: so what gets lost on its way, or is said twice, changes nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor

from routing.allowance import Budget, Minute, Period, counts

LATE_S = 5.0
"""What is free again of a minute is so only if it is heard so soon: later, it may be of those that are over."""
FORGET_EVERY_S = 600.0
"""Between two looks for routers of whom nothing counts any more."""
AHEAD_SHARE = 0.01
"""Of what is left, lent ahead of need at most: what one router holds idle, another one lacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit of one tenant."""

    unit: str
    """`requests`, `tokens` or `gpu_s`."""
    amount: float
    period: Period | None = None
    """None: in any minute."""

    @property
    def name(self) -> str:
        return f"{self.unit}/{self.period or 'min'}"

    @classmethod
    def named(cls, name: str, amount: float = 0.0) -> "Limit":
        unit, _, period = name.partition("/")
        return cls(unit=unit, amount=amount, period=None if period == "min" else Period(period))


@dataclass(frozen=True, slots=True, kw_only=True)
class Loan:
    """What a router was lent, or why nothing."""

    amounts: dict[str, float]
    """By name of limit; empty where one had too little."""
    until_s: dict[str, float]
    """When what is unused of it is void."""
    short: str | None = None
    """The limit that had too little."""
    left: float = 0.0
    """What it had."""
    wait_s: float = 0.0
    """Until it has enough, if nobody else asks; inf: never."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a router spent of what it has had, of one tenant's budgets."""

    at_s: float
    """When that was so."""
    amounts: Mapping[str, float]
    """By name of limit."""


class Ledger:
    """All limits of all tenants.

    `lent`: by tenant and name of limit, what a former one kept of its budgets (`kept`); `had`: by router, tenant and
    name, what it kept of routers (`had`).
    """

    def __init__(
        self,
        lent: Mapping[tuple[str, str], tuple[float, float]] | None = None,
        had: Mapping[tuple[str, str, str], tuple[float, float]] | None = None,
    ) -> None:
        self._told = dict(lent or {})
        self._accounts: dict[tuple[str, str], Minute | Budget] = {}
        self._had = dict(had or {})
        """How much a router has had, and when that was so."""
        self._forgot_s = 0.0

    def borrow(
        self,
        router: str,
        tenant: str,
        limits: Sequence[Limit],
        needs: Mapping[str, float],
        ahead: Mapping[str, float],
        now_s: float,
    ) -> Loan:
        """All that is needed, or nothing; and what would soon be, as far as that leaves enough for others."""
        accounts = {limit.name: self._account(tenant, limit) for limit in limits}
        for name, amount in needs.items():
            if (left := accounts[name].left(now_s)) < amount:
                wait_s = accounts[name].wait_s(amount, now_s)
                return Loan(amounts={}, until_s={}, short=name, left=left, wait_s=wait_s)
        amounts: dict[str, float] = {}
        for name, amount in needs.items():
            account = accounts[name]
            spare = account.left(now_s) - amount
            # Whole ones: a part of a request would keep another router from a whole one.
            amounts[name] = amount + floor(min(ahead.get(name, 0.0), AHEAD_SHARE * spare))
            account.move(amounts[name], now_s)
            before, _ = self._had.get((router, tenant, name), (0.0, 0.0))
            self._had[router, tenant, name] = (before + amounts[name], now_s)
        return Loan(amounts=amounts, until_s={name: accounts[name].until_s(now_s) for name in amounts})

    def settle(
        self,
        router: str,
        tenant: str,
        limits: Sequence[Limit],
        had: Mapping[str, float],
        sent_s: float,
        now_s: float,
    ) -> dict[str, float]:
        """A router says, by name, how much it was lent in all, less what it gives back, and more by what it used beyond
        that. Says by how much that changes what is lent; below 0: so much is free again.

        What a router says that is not known, or was last heard when what was lent then counts no more, changes nothing:
        it may be of that. Nor does what is free of a minute and was sent too long ago.
        """
        changes = {}
        self._forget(now_s)
        for limit in limits:
            account, key, said = self._account(tenant, limit), (router, tenant, limit.name), had[limit.name]
            before, then_s = self._had.get(key, (said, now_s))
            self._had[key] = (said, now_s)
            late = limit.period is None and said < before and now_s - sent_s > LATE_S
            if said != before and counts(limit.period, then_s, now_s) and not late:
                account.move(said - before, now_s)
                changes[limit.name] = said - before
        return changes

    def end(self, router: str, spent: Mapping[str, Spent], now_s: float) -> set[str]:
        """A router is gone. Of budgets only what it spent stays lent: `spent` by tenant. Says of which tenants it has
        had anything.

        Of whom it says nothing, or nothing in the period that it is, all that it was lent stays so.
        """
        gone = [key for key in self._had if key[0] == router]
        for key in gone:
            _, tenant, name = key
            (had, then_s), limit, told = self._had.pop(key), Limit.named(name), spent.get(tenant)
            if limit.period is None or told is None or name not in told.amounts:
                continue
            if all(counts(limit.period, at_s, now_s) for at_s in (then_s, told.at_s)):
                account = self._accounts.get((tenant, name)) or self._account(tenant, limit)
                account.move(told.amounts[name] - had, now_s)
        return {tenant for _, tenant, _ in gone}

    def minutes(self, now_s: float) -> Iterator[tuple[str, str, float, float]]:
        """What counts now of minutes: of whom, of which limit, when it was lent, and how much."""
        for (tenant, name), account in self._accounts.items():
            if isinstance(account, Minute):
                yield from ((tenant, name, at_s, amount) for at_s, amount in account.lent(now_s))

    def loans(self) -> Iterator[tuple[str, str, str, float, float]]:
        """Which router, of whom and of which limit, has had how much, and when that was so."""
        yield from ((*key, amount, at_s) for key, (amount, at_s) in self._had.items())

    def remember(
        self, router: str, tenant: str, lent: Mapping[str, float], had: Mapping[str, float], at_s: float
    ) -> None:
        """A former one lent so much of minutes then, by name; below 0: it was given back. That router has had so much
        since.
        """
        for name, amount in lent.items():
            self._account(tenant, Limit.named(name)).move(amount, at_s)
        for name, amount in had.items():
            self._had[router, tenant, name] = (amount, at_s)

    def kept(self, tenant: str) -> dict[str, tuple[float, float]]:
        """Of a tenant's budgets, what is lent and since when: what must outlive this."""
        return {
            name: (account.lent, account.begin_s)
            for (owner, name), account in self._accounts.items()
            if owner == tenant and isinstance(account, Budget) and account.begin_s is not None
        }

    def had(self, router: str, tenant: str, names: Iterable[str]) -> dict[str, tuple[float, float]]:
        """Of these limits, what the router has had, and when that was so: what must outlive this."""
        return {name: had for name in names if (had := self._had.get((router, tenant, name))) is not None}

    def _forget(self, now_s: float) -> None:
        """What counts no more, of routers that may be gone: who is not known is as good."""
        if now_s - self._forgot_s < FORGET_EVERY_S:
            return
        self._forgot_s = now_s
        over = [key for key, (_, at_s) in self._had.items() if not counts(Limit.named(key[2]).period, at_s, now_s)]
        for key in over:
            del self._had[key]

    def _account(self, tenant: str, limit: Limit) -> Minute | Budget:
        account = self._accounts.get((tenant, limit.name))
        if account is None:
            account = self._accounts[tenant, limit.name] = self._opened(tenant, limit)
        account.limit = limit.amount
        return account

    def _opened(self, tenant: str, limit: Limit) -> Minute | Budget:
        if limit.period is None:
            return Minute(limit.amount)
        return Budget(limit.amount, limit.period, *self._told.get((tenant, limit.name), (0.0, None)))
