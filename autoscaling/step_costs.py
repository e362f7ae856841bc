"""What does a step of an engine cost, by the steps that it took?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

MEMORY_S = 300.0
"""Busy seconds over which steps are remembered: older ones weigh exponentially less."""
RIDGE = (1e-8, 1e-6, 1e-8)
"""Of each column's own square. What no step told apart is shared, and hardly any of it is the sequences': steps of one
sequence each say nothing of how dear a second one is, and it is seldom dear.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCosts:
    """Seconds of a step: step_s + sequence_s * sequences + prompt_token_s * prompt tokens read in it."""

    step_s: float
    sequence_s: float
    """Of each sequence that gets a token."""
    prompt_token_s: float
    """Of each prompt token that is computed, not found in the cache."""

    def __post_init__(self) -> None:
        # Chained, so that what is no number is refused too.
        if not all(0 <= value < 1e6 for value in (self.step_s, self.sequence_s, self.prompt_token_s)):
            raise ValueError(f"costs must be seconds >= 0, got {self}")
        if self.step_s + self.sequence_s + self.prompt_token_s <= 0:
            raise ValueError(f"a step must cost something, got {self}")

    def work_s(self, prompt_tokens: float, output_tokens: float) -> float:
        """Seconds of an engine for so many tokens, beside what its steps cost anyway."""
        return self.prompt_token_s * prompt_tokens + self.sequence_s * output_tokens


class StepFit:
    """Least squares over an engine's steps, of relative error's weight, with no cost below 0."""

    def __init__(self) -> None:
        self._squares = [[0.0] * 3 for _ in range(3)]
        self._products = [0.0] * 3

    def add(self, seconds: float, *, sequences: float, prompt_tokens: float, steps: int = 1) -> None:
        """So many like steps took `seconds` in all; `sequences` and `prompt_tokens` are one step's."""
        if seconds <= 0:
            return
        keep = max(0.0, 1.0 - seconds / MEMORY_S)
        weight = steps * steps / seconds
        of_sequences, of_tokens = weight * sequences, weight * prompt_tokens
        # Written out, as every step of a simulation comes here.
        first, second, third = self._squares
        first[0] = first[0] * keep + weight
        first[1] = second[0] = first[1] * keep + of_sequences
        first[2] = third[0] = first[2] * keep + of_tokens
        second[1] = second[1] * keep + of_sequences * sequences
        second[2] = third[1] = second[2] * keep + of_sequences * prompt_tokens
        third[2] = third[2] * keep + of_tokens * prompt_tokens
        products = self._products
        products[0] = products[0] * keep + steps
        products[1] = products[1] * keep + steps * sequences
        products[2] = products[2] * keep + steps * prompt_tokens

    def costs(self) -> StepCosts | None:
        """None while no step was taken."""
        best, least = None, float("inf")
        for found in self._candidates():
            error = self._error(found)
            if error < least:
                best, least = found, error
        return StepCosts(step_s=best[0], sequence_s=best[1], prompt_token_s=best[2]) if best else None

    def _candidates(self) -> Iterator[list[float]]:
        """The best costs, or, where one of them is below 0, the best with fewer of them."""
        for size in (3, 2, 1):
            fitting = [found for kept in combinations(range(3), size) if (found := self._solved(kept))]
            yield from fitting
            if fitting:
                return

    def _solved(self, kept: Sequence[int]) -> list[float] | None:
        """By Gauss' elimination; None where a cost is below 0 or nothing is known."""
        rows = [[self._squares[i][j] * (1 + RIDGE[i] * (i == j)) for j in kept] + [self._products[i]] for i in kept]
        if any(row[i] <= 0 for i, row in enumerate(rows)):
            return None
        for i, row in enumerate(rows):
            if row[i] <= 0:
                return None
            for j, other in enumerate(rows):
                if j != i:
                    factor = other[i] / row[i]
                    rows[j] = [theirs - factor * ours for theirs, ours in zip(other, row, strict=True)]
        values = [row[-1] / row[i] for i, row in enumerate(rows)]
        if min(values) < 0 or max(values) <= 0:
            return None
        found = [0.0] * 3
        for i, value in zip(kept, values, strict=True):
            found[i] = value
        return found

    def _error(self, values: Sequence[float]) -> float:
        """Weighted squares of what is left, but for what is the same for all candidates."""
        quadratic = sum(values[i] * values[j] * self._squares[i][j] for i in range(3) for j in range(3))
        return quadratic - 2 * sum(value * product for value, product in zip(values, self._products, strict=True))
