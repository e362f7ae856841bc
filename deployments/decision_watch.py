"""How do decisions get from the journal into a router's metrics and into the store?

Each router reads for itself, so that no router's end loses anything; the store knows what it has.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from autoscaling import START, Cursor, Entry
from deployments.late_store import LateStore
from deployments.looks import go_on_looking

LOOK_S = 5.0
"""Seconds between two looks into the journal."""
ANSWER_S = 5.0
"""Patience with whoever holds it."""
UNSTORED = 1000
"""Entries that wait for a store that fails; beyond, the oldest are lost."""

Ask = Callable[[Cursor], Awaitable[tuple[Cursor, list[Entry]]]]
Keep = Callable[[Sequence[Entry]], None]


def keeper(store: LateStore) -> Keep:
    """Writes to a store."""
    return lambda entries: store.opened().add_decisions(entries)


async def watch(
    ask: Ask, keep: Keep | None, tell: Callable[[Sequence[Entry]], None], log: Callable[[str], None]
) -> None:
    """Goes on until it is cancelled. `keep` may block, and is None where nothing is stored. Says a failure once."""
    cursor, unstored = START, deque[Entry](maxlen=UNSTORED)

    async def look() -> None:
        nonlocal cursor
        cursor, fresh = await asyncio.wait_for(ask(cursor), ANSWER_S)
        tell(fresh)
        unstored.extend(fresh)
        if keep is not None and unstored:
            await asyncio.to_thread(keep, list(unstored))
        unstored.clear()

    await go_on_looking(look, LOOK_S, _failed, log)


def _failed(error: Exception) -> str:
    return f"scale decisions are not stored now: {type(error).__name__}: {error}"
