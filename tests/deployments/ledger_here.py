"""What stands for a fleet's ledger, where routers are in one process with it?"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from time import time
from typing import Any

import routing
from deployments.fleet import Tenant
from deployments.tolls import Tolls


@dataclass
class Here:
    """A ledger in this process, which can be lost, or late: what it was asked it does also for who waits no more."""

    ledger: routing.Ledger = field(default_factory=routing.Ledger)
    lost: bool = False
    late: asyncio.Event | None = None
    asked: int = 0

    async def borrow(
        self,
        tenant: str,
        limits: Sequence[routing.Limit],
        had: Mapping[str, float],
        needs: Mapping[str, float],
        ahead: Mapping[str, float],
        router: str = "r",
    ) -> routing.Loan:
        await asyncio.sleep(0)
        self.asked += 1
        if self.lost:
            raise ConnectionError("gone")

        async def lent() -> routing.Loan:
            if self.late is not None:
                await self.late.wait()
            self.ledger.settle(router, tenant, limits, had, time(), time())
            return self.ledger.borrow(router, tenant, limits, needs, ahead, time())

        return await asyncio.shield(asyncio.ensure_future(lent()))

    async def settle(
        self, tenant: str, limits: Sequence[routing.Limit], had: Mapping[str, float], router: str = "r"
    ) -> None:
        await asyncio.sleep(0)
        if self.lost:
            raise ConnectionError("gone")
        self.ledger.settle(router, tenant, limits, had, time(), time())


@dataclass
class At:
    """The ledger, as a router of this name asks it."""

    ledger: Here
    router: str
    forget: set[str] = field(default_factory=set)
    """What is done, and its answer lost: `borrow`, `settle`."""

    async def borrow(self, *told: Any) -> routing.Loan:
        loan = await self.ledger.borrow(*told, router=self.router)
        if "borrow" in self.forget:
            raise ConnectionError("gone")
        return loan

    async def settle(self, *told: Any) -> None:
        await self.ledger.settle(*told, router=self.router)
        if "settle" in self.forget:
            raise ConnectionError("gone")


@dataclass
class Spendings:
    """As kept of a router that is killed."""

    spent: dict[str, routing.Spent]

    def add(self, owner: str, spent: routing.Spent) -> None:
        self.spent[owner] = spent


def tenant(**what: object) -> Tenant:
    return Tenant.model_validate({"name": "alpha", "key_hashes": [sha256(b"sk-alpha").hexdigest()], **what})


def toll_keeper(alpha: Tenant, ledger: Here | At, said: list[str] | None = None) -> Tolls:
    return Tolls([alpha], ledger, (said if said is not None else []).append)
