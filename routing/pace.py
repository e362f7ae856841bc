"""How many seconds does each replica need for a prompt token, when equal ones are measured under unequal load?

A step of n prompt tokens takes about a + b n seconds: an engine that reads many at once has a better rate than its
equal that reads few, and a router that believed both rates would send everything to the busiest. But equal engines
obey two laws, whatever a and b: the one with the larger steps takes no less time for a step, and no less rate. What
breaks neither law is no evidence; what breaks one says by how much, at least, one engine is slower than the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import median

ALIKE = 1.4
"""Times slower that an equal engine may look, as the answers in its steps have longer contexts: no evidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What an engine measured of its steps that read prompts."""

    tokens_per_s: float
    step_tokens: float
    """Tokens of the mean step."""

    @property
    def step_s(self) -> float:
        """Seconds of the mean step."""
        return self.step_tokens / self.tokens_per_s


def token_seconds(measured: Mapping[str, Measured]) -> dict[str, float]:
    """Seconds for a prompt token, by replica: the median of all, times how much slower than the others it is.

    A replica's slowness is the middle of what is certain of it against each of them, itself among them: one slow
    replica doesn't make the others fast, nor do two of three.
    """
    if not measured:
        return {}
    usual_s = median(1.0 / one.tokens_per_s for one in measured.values())
    return {
        name: usual_s * _middle([_slower(one, other) for other in measured.values()]) for name, one in measured.items()
    }


def _slower(one: Measured, other: Measured) -> float:
    """How many times slower the first is: of all values that the measurements allow, the one nearest to 1."""
    by_time, by_rate = one.step_s / other.step_s, other.tokens_per_s / one.tokens_per_s
    least, most = min(by_time, by_rate), max(by_time, by_rate)
    return least if least > ALIKE else most if most < 1.0 / ALIKE else 1.0


def _middle(ratios: list[float]) -> float:
    """The geometric median, so that two replicas of different speed come out as far apart as they are."""
    ratios.sort()
    half = len(ratios) // 2
    return ratios[half] if len(ratios) % 2 else sqrt(ratios[half - 1] * ratios[half])
