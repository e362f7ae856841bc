"""Where is the one ledger of a fleet, and how does it outlive its process?

A named Ray actor, which any router starts that finds none. Before it lends of a budget, that is in the store; before it
lends of a minute, that is in a file of this machine.
"""

import asyncio
from collections.abc import Mapping, Sequence
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
        if url is None:
            self._ledger = routing.Ledger()
            return
        from deployments import store, stored_ledger

        budgets, minutes = self._kept = store.Store(url), LentMinutes(store_path(url, MINUTES))
        self._ledger = routing.Ledger(stored_ledger.kept(budgets))
        for lent in minutes.recall():
            self._ledger.remember(lent.owner, lent.amounts, lent.at_s)

    def borrow(
        self,
        tenant: str,
        limits: Sequence[routing.Limit],
        needs: Mapping[str, float],
        ahead: Mapping[str, float],
    ) -> routing.Loan:
        now_s = time()
        loan = self._ledger.borrow(tenant, limits, needs, ahead, now_s)
        if loan.amounts:
            self._keep(tenant, limits, loan.amounts, now_s)
        return loan

    def settle(self, tenant: str, limits: Sequence[routing.Limit], unused: Mapping[str, float]) -> None:
        now_s = time()
        self._ledger.settle(tenant, limits, unused, now_s)
        self._keep(tenant, limits, {name: -amount for name, amount in unused.items()}, now_s)

    def _keep(self, tenant: str, limits: Sequence[routing.Limit], lent: Mapping[str, float], now_s: float) -> None:
        if self._kept is None:
            return
        from deployments import stored_ledger

        budgets, minutes = self._kept
        if minutes.full:
            minutes.begin(Lent(at_s, owner, {name: had}) for owner, name, at_s, had in self._ledger.minutes(now_s))
        elif of_minutes := {one.name: lent[one.name] for one in limits if one.period is None and one.name in lent}:
            minutes.add(Lent(now_s, tenant, of_minutes))
        if any(limit.period is not None for limit in limits):
            stored_ledger.keep(budgets, tenant, self._ledger.kept(tenant))


class RayLedger:
    """The actor, as a router sees it. One that is lost is found or started anew with the next question."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._actor: Any = None

    async def borrow(
        self,
        tenant: str,
        limits: Sequence[routing.Limit],
        needs: Mapping[str, float],
        ahead: Mapping[str, float],
    ) -> routing.Loan:
        return await self._ask("borrow", tenant, list(limits), dict(needs), dict(ahead))

    async def settle(self, tenant: str, limits: Sequence[routing.Limit], unused: Mapping[str, float]) -> None:
        await self._ask("settle", tenant, list(limits), dict(unused))

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
