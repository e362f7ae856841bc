"""How many requests does a router answer at once, and when will one of them have ended?"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import routing
from deployments.openai_wire import ApiError

REMEMBERED = 64
"""Requests whose duration makes the forecast."""


class OpenRequests:
    """Those of one router, from their heads to the ends of their answers."""

    def __init__(self, most: int) -> None:
        self._most, self._open = most, 0
        self._took_s: deque[float] = deque(maxlen=REMEMBERED)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """One more, until the end of this. Raises ApiError(503) when it would be too many."""
        if self._open >= self._most:
            message = f"This server answers {self._open} requests, as many as it takes at once."
            raise ApiError(
                503, message, kind="server_error", code="overloaded", retry_after_s=self._seconds_to_an_end()
            )
        began_s = monotonic()
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            self._took_s.append(monotonic() - began_s)

    def _seconds_to_an_end(self) -> int:
        """By Little's law: of n that take s seconds each, one ends each s / n seconds."""
        mean_s = sum(self._took_s) / len(self._took_s) if self._took_s else 0.0
        return routing.retry_after_s(mean_s / self._open)
