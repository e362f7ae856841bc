"""What came to one model lately, and how well was it served?"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

SHORT_S = 15
LONG_S = 60
"""Seconds over which arrivals are counted."""
SHAPE_REQUESTS = 200
"""Requests over which lengths are averaged: older ones weigh exponentially less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Counts over the last seconds, and the shape of requests."""

    short_requests: float = 0.0
    """That came in the last SHORT_S seconds, and the tokens of their prompts."""
    short_tokens: float = 0.0
    long_requests: float = 0.0
    """The same for LONG_S."""
    long_tokens: float = 0.0
    judged_requests: float = 0.0
    """That ended in the last SHORT_S seconds."""
    missed_requests: float = 0.0
    """Of them: later than the targets allow, or failed."""
    prompt_tokens: float = 0.0
    """Of a request, in the mean; 0 while unknown."""
    prompt_spread: float = 0.0
    """Of prompts' tokens: variance / mean squared."""
    output_tokens: float = 0.0
    """Of an answer, in the mean; 0 while unknown."""

    def to_metrics(self) -> dict[str, float]:
        """By names, as a router reports them."""
        return {field.name: float(getattr(self, field.name)) for field in fields(self)}

    @staticmethod
    def together(reports: Sequence[Mapping[str, float]]) -> "Traffic":
        """Of several routers: counts are added, the shape is the mean by requests."""
        if not reports:
            return Traffic()
        weights = [report["long_requests"] + 1e-9 for report in reports]
        whole = sum(weights)

        def total(name: str) -> float:
            return sum(report[name] for report in reports)

        def mean(name: str) -> float:
            return sum(weight * report[name] for weight, report in zip(weights, reports, strict=True)) / whole

        shape = ("prompt_tokens", "prompt_spread", "output_tokens")
        names = [field.name for field in fields(Traffic)]
        return Traffic(**{name: mean(name) if name in shape else total(name) for name in names})


class Tally:
    """Counts one router's requests of one model. Seconds are any clock's that never goes back."""

    def __init__(self) -> None:
        self._second = 0
        self._bins: deque[list[float]] = deque([[0.0] * 4], maxlen=LONG_S)
        self._arrived = 0
        self._answered = 0
        self._prompt = self._prompt_square = self._output = 0.0

    def arrived(self, now_s: float, prompt_tokens: int) -> None:
        """A request was let in."""
        one = self._bin(now_s)
        one[0] += 1
        one[1] += prompt_tokens
        self._arrived += 1
        weight = 1 / min(self._arrived, SHAPE_REQUESTS)
        self._prompt += weight * (prompt_tokens - self._prompt)
        self._prompt_square += weight * (prompt_tokens * prompt_tokens - self._prompt_square)

    def ended(self, now_s: float, output_tokens: int, *, missed: bool) -> None:
        """A request got its last token, or failed."""
        one = self._bin(now_s)
        one[2] += 1
        one[3] += missed
        if output_tokens:
            self._answered += 1
            self._output += (output_tokens - self._output) / min(self._answered, SHAPE_REQUESTS)

    def traffic(self, now_s: float) -> Traffic:
        """Up to now."""
        self._bin(now_s)
        long_requests = long_tokens = short_requests = short_tokens = judged = missed = 0.0
        for age, (requests, tokens, ended, late) in enumerate(reversed(self._bins)):
            long_requests += requests
            long_tokens += tokens
            if age < SHORT_S:
                short_requests += requests
                short_tokens += tokens
                judged += ended
                missed += late
        square = self._prompt * self._prompt
        return Traffic(
            short_requests=short_requests,
            short_tokens=short_tokens,
            long_requests=long_requests,
            long_tokens=long_tokens,
            judged_requests=judged,
            missed_requests=missed,
            prompt_tokens=self._prompt,
            prompt_spread=max(0.0, self._prompt_square / square - 1) if square else 0.0,
            output_tokens=self._output,
        )

    def _bin(self, now_s: float) -> list[float]:
        second = int(now_s)
        for _ in range(min(second - self._second, LONG_S)):
            self._bins.append([0.0] * 4)
        self._second = max(second, self._second)
        return self._bins[-1]
