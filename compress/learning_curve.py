"""How does training go? One point a step, told in a line and kept in the report."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

BARS = "▁▂▃▄▅▆▇█"
CELLS = 24
"""Width of a curve in a line of text."""


@dataclass(kw_only=True)
class Curve:
    """What each step so far gave; the first is step 1."""

    loss: list[float] = field(default_factory=list)
    """Mean over the step's blocks, before the step changes anything."""
    seconds: list[float] = field(default_factory=list)
    """Of training until the step's end, times before an interruption included."""

    def add(self, loss: float, seconds: float) -> None:
        """One step more."""
        self.loss.append(loss)
        self.seconds.append(seconds)

    @property
    def lasted_s(self) -> float:
        """Of all steps."""
        return self.seconds[-1] if self.seconds else 0.0

    def told(self) -> str:
        """In a line: where it began, its course, where it is."""
        return f"loss {self.loss[0]:.3f} {drawn(self.loss)} {self.loss[-1]:.3f}"

    def found(self) -> dict[str, list[float]]:
        """As a report keeps it."""
        steps = [float(number) for number in range(1, len(self.loss) + 1)]
        return {"step": steps, "loss": self.loss, "seconds": [round(second, 3) for second in self.seconds]}


def drawn(values: Sequence[float]) -> str:
    """Bars for the means of equal parts, the lowest and the highest in view."""
    count = min(CELLS, len(values))
    ends = [len(values) * cell // count for cell in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(ends)]
    low, high = min(means), max(means)
    if not low < high:
        return BARS[0] * count
    return "".join(BARS[round((mean - low) / (high - low) * (len(BARS) - 1))] for mean in means)
