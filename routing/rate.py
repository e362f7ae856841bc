"""How fast does an engine read prompts, or make tokens, by the steps that it took?"""

MEMORY_S = 10.0
"""Busy seconds over which rates are averaged: older work weighs exponentially less."""
UNLIKE_S = 15.0
"""Predicted for a step that is like none measured: the first ones compile what they need."""


class Rate:
    """Tokens per busy second, exponentially forgetting, and how long steps took for that."""

    def __init__(self) -> None:
        self._tokens = self._seconds = self._steps = 0.0

    def add(self, tokens: float, seconds: float) -> None:
        """A step made so many tokens in so many seconds."""
        keep = max(0.0, 1.0 - seconds / MEMORY_S)
        self._tokens = self._tokens * keep + tokens
        self._seconds = self._seconds * keep + seconds
        self._steps = self._steps * keep + 1

    @property
    def measured(self) -> bool:
        return self._seconds > 0

    def per_s(self) -> float:
        """0 while nothing was measured."""
        return self._tokens / self._seconds if self.measured else 0.0

    def step_tokens(self) -> float:
        """Of the mean step; 0 while nothing was measured."""
        return self._tokens / self._steps if self.measured else 0.0

    def step_s(self, tokens: int) -> float:
        """Seconds that a step of so many tokens takes at most; UNLIKE_S while nothing was measured.

        The tokens at the measured rate, but no less than the mean step. If a step takes a + b n seconds for n tokens,
        with any a and b, it never takes longer than this: what comes above the mean step's tokens is charged a second
        time for a, what comes below is charged for the mean step's. Far above the mean step UNLIKE_S is the limit.
        """
        if not self.measured:
            return UNLIKE_S
        return max(self._seconds / self._steps, min(tokens / self.per_s(), UNLIKE_S))
