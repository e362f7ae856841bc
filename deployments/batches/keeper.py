"""How does what comes of a batch's lines get into the store, while the batch stays this router's?

In groups, one transaction each half second, which also renews the lease and tells what the store says of the batch.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from time import monotonic, time
from typing import Any

from deployments.batches import stored_batches
from deployments.batches.batch import Batch, Outcome
from deployments.batches.state import Status, may_follow
from deployments.batches.stored_batches import LeaseLost
from deployments.files.stored_files import File
from deployments.late_store import LateStore
from deployments.store import StoreError

EVERY_S = 0.5
"""Seconds between two groups."""
PACE_S = 60.0
"""The pace is that of so long."""


class BatchKeeper:
    """Of one batch that this router has claimed. Belongs to one event loop."""

    def __init__(self, batch: Batch, store: LateStore, owner: str, lease_s: float, log: Callable[[str], None]) -> None:
        self._batch, self._store, self._owner, self._lease_s, self._log = batch, store, owner, lease_s, log
        self.status, self.progress = batch.status, replace(batch.progress, lines_per_s=None)
        self.errors: list[dict[str, Any]] = list(batch.errors)
        self.done: set[int] = set()
        """Lines of which something came."""
        self.cancel = False
        """It is to be cancelled, whoever asks for that or not."""
        self.away = False
        """The store can't be reached: nothing new should begin."""
        self._new: list[Outcome] = []
        self._kept_s = monotonic()
        self._pace: deque[tuple[float, int]] = deque()
        self._alone = asyncio.Lock()

    def add(self, outcome: Outcome, tokens: tuple[int, int, int]) -> None:
        """Something came of a line."""
        self.done.add(outcome.line)
        self._new.append(outcome)
        self.progress = self.progress.with_line(answered=outcome.answered, tokens=tokens)

    async def recall(self) -> None:
        """What came of its lines before it was this router's. Raises StoreError."""
        self.done.update(await self._store.ask(stored_batches.done, self._batch.id))
        self._pace = deque([(monotonic(), len(self.done))])

    async def go_on(self) -> None:
        """Keeps what is new until it is cancelled. Raises LeaseLost."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self._keep()

    async def keep_all(self) -> None:
        """Returns when nothing is new. Raises LeaseLost."""
        await self._keep()
        while self._new:
            await asyncio.sleep(EVERY_S)
            await self._keep()

    async def keep_last(self) -> None:
        """One try, at the end of a run, however that came."""
        if self._new:
            with suppress(LeaseLost):
                await self._keep()

    async def move(self, status: Status, values: Mapping[str, Any]) -> None:
        """Goes to a state, unless it was cancelled meanwhile. Raises LeaseLost, StoreError."""
        async with self._alone:
            told = (self._batch.id, self._owner, status, values)
            self.status = await self._store.ask(stored_batches.move, *told)
        self.errors = list(values.get("errors", self.errors))

    async def end(self, status: Status, values: Mapping[str, Any], files: tuple[File | None, File | None]) -> None:
        """Ends it. Raises LeaseLost, StoreError."""
        async with self._alone:
            values = {"ended_s": time(), **values}
            await self._store.ask(stored_batches.end, self._batch.id, self._owner, status, values, files)
            self.status = status

    async def _keep(self) -> None:
        async with self._alone:
            if self.status not in stored_batches.OPEN:
                return
            new, self._new = self._new, []
            began_s, name = monotonic(), self._batch.id
            told = (name, self._owner, self._lease_s, new, self._at_pace(began_s))
            try:
                self.status = await self._store.ask(stored_batches.keep, *told)
                if self.cancel and may_follow(self.status, Status.CANCELLING):
                    asked = await self._store.ask(stored_batches.cancel, self._batch.tenant, name, time())
                    self.status = self.status if asked is None else asked.status
            except StoreError as error:
                self._new = new + self._new
                self._fail(error)
            else:
                self.away, self._kept_s = False, began_s

    def _fail(self, error: StoreError) -> None:
        """Raises LeaseLost once others may have it."""
        if not self.away:
            self._log(f"{self._batch.id} stands still: {error}")
        self.away = True
        if monotonic() - self._kept_s > self._lease_s:
            raise LeaseLost(f"{self._batch.id}: {error}")

    def _at_pace(self, now_s: float) -> Any:
        """Progress with lines per second, as far as that can be told."""
        done, pace = len(self.done), self._pace
        pace.append((now_s, done))
        while now_s - pace[0][0] > PACE_S:
            pace.popleft()
        passed_s = now_s - pace[0][0]
        rate = (done - pace[0][1]) / passed_s if passed_s else 0.0
        return replace(self.progress, lines_per_s=rate or None)
