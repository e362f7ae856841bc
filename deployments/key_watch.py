"""How do keys that are made and revoked reach a router that runs?

By a look into the store each LOOK_S seconds, in a thread: one number says whether anything changed. What a look can't
read stays as it was last known.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from deployments.api_key import ApiKey
from deployments.late_store import LateStore
from deployments.looks import go_on_looking

LOOK_S = 2.0
"""Seconds between two looks."""
ANSWER_S = 5.0
"""A router that starts waits no longer for the first one."""

Tell = Callable[[Sequence[ApiKey]], None]


class KeyWatch:
    """Reads the keys of a store, when they changed. Blocking."""

    def __init__(self, store: LateStore) -> None:
        self._store = store
        self._version: int | None = None

    def look(self) -> list[ApiKey] | None:
        """Every key, if there may be a change since the last look. Raises StoreError."""
        from deployments import stored_keys

        store = self._store.opened()
        # Before the keys: a change that comes between is read twice rather than never.
        version = stored_keys.version(store)
        if version == self._version:
            return None
        keys = stored_keys.every(store)
        self._version = version
        return keys


async def begin(watch: KeyWatch, tell: Tell, log: Callable[[str], None]) -> None:
    """The first look, for a router that is about to listen; whatever comes of it, it goes on."""
    try:
        await asyncio.wait_for(_look(watch, tell), ANSWER_S)
    except Exception as error:
        log(_unread(error))


async def go_on(watch: KeyWatch, tell: Tell, log: Callable[[str], None]) -> None:
    """Looks until it is cancelled. Says a failure once."""
    await asyncio.sleep(LOOK_S)
    await go_on_looking(partial(_look, watch, tell), LOOK_S, _unread, log)


async def _look(watch: KeyWatch, tell: Tell) -> None:
    if (keys := await asyncio.to_thread(watch.look)) is not None:
        tell(keys)


def _unread(error: Exception) -> str:
    return f"keys are not read now, those known go on working: {type(error).__name__}: {error}"
