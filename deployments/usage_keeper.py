"""How does usage get from journals into the store, a router's own and those that dead ones left?"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.held_file import left_behind
from deployments.late_store import LateStore
from deployments.looks import go_on_looking
from deployments.usage_journal import SUFFIX, UsageJournal
from deployments.usage_line import Line

if TYPE_CHECKING:
    from deployments.store import Store

EVERY_S = 2.0
"""Seconds between two looks at the journals."""
FOLDER = "usage"
"""Where journals lie, of what belongs to their store on this machine."""


def take_over_left(store: "Store", folder: Path) -> None:
    """Takes over the journals of routers that are gone. Raises StoreError, OSError."""
    from deployments import stored_usage

    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with left_behind(path) as gone:
            if gone:
                stored_usage.absorb(store, path)
                path.unlink()
                stored_usage.forget(store, path)


class UsageKeeper:
    """A router's journal, and its way into the store. `add` belongs to one event loop."""

    def __init__(self, store: LateStore, folder: Path, log: Callable[[str], None]) -> None:
        """Raises OSError."""
        self._store, self._folder, self._log = store, folder, log
        self._journal, self._full = UsageJournal(folder, log), list[UsageJournal]()
        self._absorbed = (self._journal.path, 0)

    def add(self, line: Line) -> None:
        """Keeps a line, whatever becomes of this process."""
        self._journal.add(line)

    async def go_on(self) -> None:
        """Looks until it is cancelled. Says a failure once."""
        await asyncio.sleep(EVERY_S)
        await go_on_looking(self._look, EVERY_S, self._failed, self._log)

    async def close(self) -> None:
        """Takes over the last lines, or leaves them to the next router."""
        self._full.append(self._journal)
        try:
            await asyncio.to_thread(self._take_over, None, list(self._full))
        except Exception as error:
            self._log(f"the next router takes over usage from {self._folder}: {type(error).__name__}: {error}")

    def _failed(self, error: Exception) -> str:
        return f"usage waits in {self._folder}: {type(error).__name__}: {error}"

    async def _look(self) -> None:
        if self._journal.full:
            self._full.append(self._journal)
            self._journal = UsageJournal(self._folder, self._log)
        full = list(self._full)
        await asyncio.to_thread(self._take_over, self._journal, full)
        self._full = [journal for journal in self._full if journal not in full]

    def _take_over(self, open_journal: UsageJournal | None, full: list[UsageJournal]) -> None:
        from deployments import stored_usage

        store = self._store.opened()
        if open_journal is not None and (seen := (open_journal.path, open_journal.size_bytes)) != self._absorbed:
            open_journal.sync()
            stored_usage.absorb(store, open_journal.path)
            self._absorbed = seen
        for journal in full:
            stored_usage.absorb(store, journal.path)
            journal.close()
        take_over_left(store, self._folder)
