"""Who borrows how much of which tenant's limits?

One for a fleet: routers borrow for requests that come, a little ahead, and give back what was not needed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor

from routing.allowance import Budget, Minute, Period

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


class Ledger:
    """All limits of all tenants. `told`: what a former one kept of its budgets (`kept`)."""

    def __init__(self, told: Mapping[tuple[str, str], tuple[float, float]] | None = None) -> None:
        self._told = dict(told or {})
        self._accounts: dict[tuple[str, str], Minute | Budget] = {}

    def borrow(
        self,
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
            spare = accounts[name].left(now_s) - amount
            # Whole ones: a part of a request would keep another router from a whole one.
            amounts[name] = amount + floor(min(ahead.get(name, 0.0), AHEAD_SHARE * spare))
            accounts[name].lend(amounts[name], now_s)
        return Loan(amounts=amounts, until_s={name: accounts[name].until_s(now_s) for name in amounts})

    def settle(self, tenant: str, limits: Sequence[Limit], unused: Mapping[str, float], now_s: float) -> None:
        """Amounts that were lent and not used; below 0, used and not lent."""
        for limit in limits:
            if amount := unused.get(limit.name, 0.0):
                account = self._account(tenant, limit)
                if amount > 0:
                    account.give_back(amount, now_s)
                else:
                    account.lend(-amount, now_s)

    def minutes(self, now_s: float) -> Iterator[tuple[str, str, float, float]]:
        """What counts now of minutes: of whom, of which limit, when it was lent, and how much."""
        for (tenant, name), account in self._accounts.items():
            if isinstance(account, Minute):
                yield from ((tenant, name, at_s, amount) for at_s, amount in account.lent(now_s))

    def remember(self, tenant: str, lent: Mapping[str, float], at_s: float) -> None:
        """A former one lent so much of minutes then, by name; below 0: it was given back."""
        for name, amount in lent.items():
            limit = Limit(unit=name.partition("/")[0], amount=0.0)
            self.settle(tenant, [limit], {name: -amount}, at_s)

    def kept(self, tenant: str) -> dict[str, tuple[float, float]]:
        """Of a tenant's budgets, what is lent and since when: what must outlive this."""
        return {
            name: (account.lent, account.begin_s)
            for (owner, name), account in self._accounts.items()
            if owner == tenant and isinstance(account, Budget) and account.begin_s is not None
        }

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
