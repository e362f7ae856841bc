"""Where is the one ledger of a fleet, and how does it outlive its process?

A named Ray actor, which any router starts that finds none. Before it lends of a budget, that is in the store; before it
lends of a minute, that is in a file of this machine.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence, Set
from time import time
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import routing
from deployments.lent_minutes import Lent, LentMinutes
from deployments.store_paths import store_path

if TYPE_CHECKING:
    from deployments.store import Store

NAME = "ledger"
NAMESPACE = "headrace"
MINUTES = "minutes"
"""Of what belongs to the store on this machine, the file of what is lent of minutes."""


class LedgerActor:
    """In a process of its own; one call after the other."""

    def __init__(self, url: str | None) -> None:
        self._kept: tuple[Store, LentMinutes] | None = None
        """Where it outlives this process: budgets, and minutes."""
        self._unkept: dict[str, set[str]] = {}
        """Of routers that are gone, whose budgets the store does not know yet: it failed, and will be told again."""
        if url is None:
            self._ledger = routing.Ledger()
            return
        from deployments import store, stored_ledger

        budgets, minutes = self._kept = store.Store(url), LentMinutes(store_path(url, MINUTES))
        self._ledger = stored_ledger.ledger(budgets, time())
        for lent in minutes.recall():
            self._ledger.remember(lent.router, lent.owner, lent.amounts, lent.had, lent.at_s)

    def borrow(
        self,
        router: str,
        tenant: str,
        limits: Sequence[routing.Limit],
        had: Mapping[str, float],
        needs: Mapping[str, float],
        ahead: Mapping[str, float],
        sent_s: float,
    ) -> routing.Loan:
        now_s = time()
        settled = self._ledger.settle(router, tenant, limits, had, sent_s, now_s)
        loan = self._ledger.borrow(router, tenant, limits, needs, ahead, now_s)
        self._keep(router, tenant, limits, [settled, loan.amounts], now_s)
        return loan

    def settle(
        self, router: str, tenant: str, limits: Sequence[routing.Limit], had: Mapping[str, float], sent_s: float
    ) -> None:
        now_s = time()
        self._keep(router, tenant, limits, [self._ledger.settle(router, tenant, limits, had, sent_s, now_s)], now_s)

    def end(self, router: str, spent: Mapping[str, routing.Spent]) -> None:
        tenants = self._unkept.setdefault(router, set())
        tenants |= self._ledger.end(router, spent, time())
        if self._kept is not None and tenants:
            from deployments import stored_ledger

            stored_ledger.end(self._kept[0], router, {tenant: self._ledger.kept(tenant) for tenant in tenants})
        del self._unkept[router]

    def _keep(
        self,
        router: str,
        tenant: str,
        limits: Sequence[routing.Limit],
        changes: Sequence[Mapping[str, float]],
        now_s: float,
    ) -> None:
        """Before anything of it is told."""
        if self._kept is None:
            return
        from deployments import stored_ledger

        budgets, minutes = self._kept
        of_minutes = {limit.name for limit in limits if limit.period is None}
        of_budgets = {limit.name for limit in limits} - of_minutes
        if minutes.full:
            minutes.begin(self._minutes(now_s))
        elif moved := [part for change in changes if (part := _part(change, of_minutes))]:
            had = {name: amount for name, (amount, _) in self._ledger.had(router, tenant, of_minutes).items()}
            minutes.add(*(Lent(now_s, tenant, part, router, had) for part in moved))
        if any(_part(change, of_budgets) for change in changes):
            of_router = self._ledger.had(router, tenant, of_budgets)
            stored_ledger.keep(budgets, tenant, self._ledger.kept(tenant), router, of_router)

    def _minutes(self, now_s: float) -> Iterator[Lent]:
        """All that counts now."""
        yield from (Lent(at_s, owner, {name: had}) for owner, name, at_s, had in self._ledger.minutes(now_s))
        for router, owner, name, had, at_s in self._ledger.loans():
            if routing.Limit.named(name).period is None:
                yield Lent(at_s, owner, {}, router, {name: had})


class RayLedger:
    """The actor, as a router sees it. One that is lost is found or started anew with the next question."""

    def __init__(self, url: str | None, router: str) -> None:
        self._url, self._router = url, router
        self._actor: Any = None

    async def borrow(
        self,
        tenant: str,
        limits: Sequence[routing.Limit],
        had: Mapping[str, float],
        needs: Mapping[str, float],
        ahead: Mapping[str, float],
    ) -> routing.Loan:
        told = tenant, list(limits), dict(had), dict(needs), dict(ahead)
        return await self._ask("borrow", self._router, *told, time())

    async def settle(self, tenant: str, limits: Sequence[routing.Limit], had: Mapping[str, float]) -> None:
        await self._ask("settle", self._router, tenant, list(limits), dict(had), time())

    async def end(self, router: str, spent: Mapping[str, routing.Spent]) -> None:
        """Of a router that is gone."""
        await self._ask("end", router, spent)

    async def _ask(self, method: str, *told: Any) -> Any:
        if self._actor is None:
            self._actor = await asyncio.to_thread(_found_or_started, self._url)
        try:
            return await getattr(self._actor, method).remote(*told)
        except RayActorError:
            self._actor = None
            raise


def _found_or_started(url: str | None) -> Any:
    """On this node, where an SQLite file is. It ends with the router that started it; another starts the next."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"name": NAME, "namespace": NAMESPACE, "get_if_exists": True, "max_restarts": -1, "num_cpus": 0}
    return ray.remote(LedgerActor).options(scheduling_strategy=here, **options).remote(url)


def _part(change: Mapping[str, float], names: Set[str]) -> dict[str, float]:
    return {name: amount for name, amount in change.items() if name in names}
