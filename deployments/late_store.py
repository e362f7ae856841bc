"""How do parts of a router share a store that is loaded and opened only when the first of them needs it?"""

from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deployments.store import Store


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

    def close(self) -> None:
        """Lets go of its connections."""
        with self._lock:
            if self._store is not None:
                self._store.close()
