"""Which batches does a router run now, when does it take another, and what of ended ones is cleared away?"""

import asyncio
import logging
import secrets
from collections import Counter
from contextlib import suppress
from time import monotonic, time

from deployments.batches import stored_batches
from deployments.batches.batch import WINDOW_S, Batch
from deployments.batches.run import BatchRun, Surroundings
from deployments.batches.stored_batches import LeaseLost
from deployments.files import stored_files
from deployments.fleet import Deadlines, RouterSettings
from deployments.looks import go_on_looking
from deployments.store import StoreError

LOOK_S = 1.0
"""Seconds between two looks for batches that nobody runs."""
LEASE_S = 10.0
AT_ONCE = 16
"""Batches that a router runs at once."""
OF_TENANT = 2
"""Of these, of one tenant: a second one uses what the end of the first leaves, more only take places."""
AGAIN_S = 30.0
"""A batch whose run failed for a reason of this server's rests for so long."""
CLEAR_S = 60.0

log = logging.getLogger("ray.serve")


def patient(settings: RouterSettings) -> RouterSettings:
    """A line of a batch has its whole window, and no deadline before that."""
    return settings.model_copy(update={"longest_stream_s": WINDOW_S, "deadlines": Deadlines()})


class Batches:
    """Those of one router. Belongs to one event loop."""

    def __init__(self, around: Surroundings, look_s: float = LOOK_S) -> None:
        self._around, self._look_s = around, look_s
        self._runs: dict[asyncio.Task[None], BatchRun] = {}
        self._tenants: Counter[str] = Counter()
        self._cleared_s = -CLEAR_S
        self._draining = False
        self._looking: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        return len(self._runs)

    def begin(self) -> None:
        """Looks for batches from now on."""
        self._looking = asyncio.ensure_future(go_on_looking(self._look, self._look_s, _failed, self._around.log))

    def drain(self) -> None:
        """Begins nothing more: what is in flight goes on."""
        self._draining = True
        for run in self._runs.values():
            run.stopped = True

    async def close(self) -> None:
        """Leaves all batches to other routers."""
        self.drain()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        runs = list(self._runs)
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)

    async def _look(self) -> None:
        while not self._draining and len(self._runs) < AT_ONCE and await self._took_one():
            pass
        if monotonic() - self._cleared_s >= CLEAR_S:
            await self._clear()
            self._cleared_s = monotonic()

    async def _took_one(self) -> bool:
        """Each time under another name: a run whose lease ended unnoticed is not taken for the next one."""
        owner, full = secrets.token_hex(8), [tenant for tenant, count in self._tenants.items() if count >= OF_TENANT]
        batch = await self._around.store.ask(stored_batches.claim, owner, self._around.lease_s, full)
        if batch is None:
            return False
        run = BatchRun(batch, owner, self._around)
        run.stopped = self._draining
        self._tenants[batch.tenant] += 1
        task = asyncio.ensure_future(self._run(batch, owner, run))
        self._runs[task] = run
        task.add_done_callback(lambda task: self._ended(task, batch))
        return True

    def _ended(self, task: asyncio.Task[None], batch: Batch) -> None:
        del self._runs[task]
        self._tenants[batch.tenant] -= 1

    async def _run(self, batch: Batch, owner: str, run: BatchRun) -> None:
        wait_s = 0.0
        try:
            await run.run()
        except LeaseLost as lost:
            self._around.log(f"{batch.id} is another router's now: {lost}")
        except Exception:
            log.exception("%s could not go on here, and rests for %g s", batch.id, AGAIN_S)
            wait_s = AGAIN_S
        finally:
            with suppress(StoreError):  # its lease ends by itself
                await self._around.store.ask(stored_batches.release, batch.id, owner, wait_s)

    async def _clear(self) -> None:
        """What no file and no batch needs any more."""
        store = self._around.store
        for name in await store.ask(stored_files.to_purge, time()):
            await asyncio.to_thread(self._around.shelf.remove, name)
            await store.ask(stored_files.forget, name)
        while await store.ask(stored_batches.forget_lines):
            pass
        await store.ask(stored_batches.forget_ended, time() - self._around.kept_s)


def _failed(error: Exception) -> str:
    return f"batches wait: {type(error).__name__}: {error}"
