"""How do parts of a router share a store that is loaded and opened only when the first of them needs it?"""

import asyncio
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from deployments.store import Store

T = TypeVar("T")


class LateStore:
    """The store at a URL. Any thread may ask for it."""

    def __init__(self, url: str) -> None:
        self._url, self._lock = url, Lock()
        self._store: Store | None = None

    def opened(self) -> "Store":
        """Blocks until it is open. Raises StoreError."""
        with self._lock:
            if self._store is None:
                from deployments.store import Store

                self._store = Store(self._url)
            return self._store

    async def ask(self, what: Callable[..., T], *given: Any, **named: Any) -> T:
        """What a function of a store says, from an event loop. Who is cancelled waits until it has been said, so that
        nothing is asked after that. Raises StoreError.
        """
        asking = asyncio.ensure_future(asyncio.to_thread(lambda: what(self.opened(), *given, **named)))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            await asyncio.gather(asking, return_exceptions=True)
            raise

    def close(self) -> None:
        """Lets go of its connections."""
        with self._lock:
            if self._store is not None:
                self._store.close()
