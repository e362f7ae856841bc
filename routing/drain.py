"""How fast does something empty: the queue, or what one tenant has waiting or running?"""

from collections import deque

WINDOW_S = 10.0
"""What left in the last so many seconds counts."""
LEAST, MOST = 8, 1024
"""Departures that are counted however long ago they were, and how many at most."""


class Drain:
    """What left lately. Only while something is inside does time count."""

    def __init__(self) -> None:
        self.inside = 0
        self._left: deque[tuple[float, int]] = deque()
        self._tokens = 0
        self._busy_s = 0.0
        self._since_s = 0.0

    def enter(self, now_s: float) -> None:
        if not self.inside:
            self._since_s = now_s
        self.inside += 1

    def leave(self, now_s: float, tokens: int) -> None:
        """One of those inside leaves, with so many prompt tokens."""
        clock_s = self._clock_s(now_s)
        self.inside -= 1
        if not self.inside:
            self._busy_s = clock_s
        self._left.append((clock_s, tokens))
        self._tokens += tokens
        self._forget(clock_s)

    def requests_per_s(self, now_s: float) -> float:
        """Departures per busy second; 0 while that is not known."""
        return len(self._left) / self._span_s(now_s) if self._left else 0.0

    def tokens_per_s(self, now_s: float) -> float:
        """Their prompt tokens per busy second; 0 while that is not known."""
        return self._tokens / self._span_s(now_s) if self._left else 0.0

    def _clock_s(self, now_s: float) -> float:
        """Seconds so far in which something was inside."""
        return self._busy_s + (now_s - self._since_s if self.inside else 0.0)

    def _span_s(self, now_s: float) -> float:
        """A second is the shortest time taken: one departure a moment ago says nothing about a rate."""
        clock_s = self._clock_s(now_s)
        self._forget(clock_s)
        return max(1.0, clock_s - self._left[0][0])

    def _forget(self, clock_s: float) -> None:
        left = self._left
        while len(left) > LEAST and (clock_s - left[0][0] > WINDOW_S or len(left) > MOST):
            self._tokens -= left.popleft()[1]
