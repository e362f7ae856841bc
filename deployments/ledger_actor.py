"""Where is the one ledger of a fleet, and how does it outlive its process?

A named Ray actor, which any router starts that finds none. What it lends of a budget is in the store before it is lent;
what it lends of a minute is not: a new ledger begins minutes anew.
"""

import asyncio
from collections.abc import Mapping, Sequence
from time import time
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import routing

if TYPE_CHECKING:
    from deployments.store import Store

NAME = "ledger"
NAMESPACE = "headrace"


class LedgerActor:
    """In a process of its own; one call after the other."""

    def __init__(self, url: str | None) -> None:
        self._store: Store | None = None
        told: Mapping[tuple[str, str], tuple[float, float]] = {}
        if url is not None:
            from deployments import store, stored_ledger

            self._store = store.Store(url)
            told = stored_ledger.kept(self._store)
        self._ledger = routing.Ledger(told)

    def borrow(
        self,
        tenant: str,
        limits: Sequence[routing.Limit],
        needs: Mapping[str, float],
        ahead: Mapping[str, float],
    ) -> routing.Loan:
        loan = self._ledger.borrow(tenant, limits, needs, ahead, time())
        if loan.amounts:
            self._keep(tenant, limits)
        return loan

    def settle(self, tenant: str, limits: Sequence[routing.Limit], unused: Mapping[str, float]) -> None:
        self._ledger.settle(tenant, limits, unused, time())
        self._keep(tenant, limits)

    def _keep(self, tenant: str, limits: Sequence[routing.Limit]) -> None:
        if self._store is not None and any(limit.period is not None for limit in limits):
            from deployments import stored_ledger

            stored_ledger.keep(self._store, tenant, self._ledger.kept(tenant))


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
