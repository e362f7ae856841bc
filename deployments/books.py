"""What does a router read from its store, and what does it write there: keys, usage, limits, batches, decisions?"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from autoscaling import Entry
from deployments import decision_watch, key_watch
from deployments.controller import from_controller
from deployments.desks import Desks
from deployments.fleet import Fleet, RouterSettings, files_url
from deployments.key_ring import KeyRing
from deployments.late_store import LateStore
from deployments.ledger_actor import RayLedger
from deployments.router_metrics import RouterMetrics
from deployments.spent_file import FOLDER as SPENT
from deployments.spent_file import SpentFile
from deployments.store_paths import store_path
from deployments.tolls import Tolls
from deployments.usage_keeper import FOLDER as USAGE
from deployments.usage_keeper import UsageKeeper

if TYPE_CHECKING:
    from deployments.batches.running import Batches
    from deployments.stored_routes import StoredRoutes

Log = Callable[[str], None]


class Books:
    """Of one router. Without a store there are the keys of the fleet's file, and nothing is written."""

    def __init__(self, fleet: Fleet, log: Log) -> None:
        """Raises OSError where usage, or what is spent of budgets, can't be kept."""
        self._log, self._store = log, LateStore(fleet.store.url) if fleet.store.url else None
        self.ring = KeyRing(fleet.tenants, lets_in=fleet.router.lets_in, stored=None if self._store else ())
        # A key with limits may be made at any time.
        limited = self._store is not None or any(tenant.limits for tenant in fleet.tenants)
        self._spent = SpentFile(store_path(fleet.store.url, SPENT), log) if fleet.store.url else None
        self._ledger = RayLedger(
            fleet.store.url, self._spent.router if self._spent is not None else secrets.token_hex(8)
        )
        self.tolls = Tolls(fleet.tenants, self._ledger, log, self._spent) if limited else None
        self.journal: UsageKeeper | None = None
        self._files = files_url(fleet.store)
        if self._store is not None and fleet.store.url:
            self._keys = key_watch.KeyWatch(self._store)
            self.journal = UsageKeeper(self._store, store_path(fleet.store.url, USAGE), log)

    async def begin(self) -> None:
        """Before the router listens."""
        if self._store is not None:
            await key_watch.begin(self._keys, self.ring.hear, self._log)

    def go_on(self, decided: Callable[[Sequence[Entry]], None]) -> list[asyncio.Task[None]]:
        """What is to be cancelled at the router's end."""
        keep = decision_watch.keeper(self._store) if self._store is not None else None
        work = [decision_watch.watch(from_controller, keep, decided, self._log)]
        if self._store is not None:
            work.append(key_watch.go_on(self._keys, self.ring.hear, self._log))
        if self.journal is not None:
            work.append(self.journal.go_on())
        if self.tolls is not None:
            work.append(self.tolls.go_on())
        if self._spent is not None:
            work.append(self._spent.go_on(self._ledger.end))
        return [asyncio.ensure_future(one) for one in work]

    def work(
        self, desks: Desks, metrics: RouterMetrics, settings: RouterSettings
    ) -> "tuple[StoredRoutes, Batches] | None":
        """Routes for files and batches, and what runs batches; None where there is no place for files.

        Raises whatever keeps that place from being used.
        """
        if self._store is None or self._files is None:
            return None
        from deployments.files.shelf import Shelf
        from deployments.stored_routes import stored

        told = (desks, metrics, settings, self.ring, self.journal, self.tolls, self._log)
        return stored(self._store, Shelf(self._files), *told)

    async def close(self) -> None:
        """Nothing is answered any more: what is still to be written is, as far as that can be."""
        if self.journal is not None:
            await self.journal.close()
        if self.tolls is not None:
            await self.tolls.close()
        if self._spent is not None:
            await self._spent.close(self._ledger.end)
        if self._store is not None:
            self._store.close()
