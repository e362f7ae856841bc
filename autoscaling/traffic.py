"""What came to one model lately, and how well was it served?"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

SHORT_S = 15
LONG_S = 60
"""Seconds over which arrivals are counted."""
SHAPE_REQUESTS = 200
"""Requests over which lengths are averaged, those of answers over LONG_S if that is more: older ones weigh
exponentially less.
"""
FEW_ANSWERS = 5
"""While fewer have ended, lengths are those that so many would have, as far as so many came."""


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
    """Of an answer, in the mean; 0 while unknown. By the tokens that all have so far, for each that has ended."""

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
        # Of each whole second: requests, their tokens, and those that ended and that missed.
        self._bins: deque[list[int]] = deque([[0] * 4 for _ in range(LONG_S)], maxlen=LONG_S)
        self._short, self._long = [0] * 4, [0] * 4
        self._arrived = self._broken = 0
        self._prompt = self._prompt_square = 0.0
        self._made, self._answers = 0.0, 0

    def arrived(self, now_s: float, prompt_tokens: int) -> None:
        """A request was let in."""
        self._count(now_s, 0, 1, prompt_tokens)
        self._arrived += 1
        weight = 1 / min(self._arrived, SHAPE_REQUESTS)
        self._prompt += weight * (prompt_tokens - self._prompt)
        self._prompt_square += weight * (prompt_tokens * prompt_tokens - self._prompt_square)

    def made(self, tokens: int) -> None:
        """So many tokens of answers came, which may go on."""
        self._made += tokens

    def broke_off(self, tokens: int) -> None:
        """An answer failed or was left after so many tokens: it tells nothing of lengths."""
        self._made = max(0.0, self._made - tokens)
        self._broken += 1

    def ended(self, now_s: float, *, whole: bool, missed: bool) -> None:
        """A request got its last token, or failed."""
        self._count(now_s, 2, 1, int(missed))
        if whole:
            self._answers += 1
            # Longer than answers take: tokens of one second end in a later one.
            most = max(SHAPE_REQUESTS, self._long[2])
            if self._answers > most:
                self._made *= most / self._answers
                self._answers = most

    def traffic(self, now_s: float) -> Traffic:
        """Up to now."""
        self._pass(now_s)
        square = self._prompt * self._prompt
        answers = max(self._answers, min(FEW_ANSWERS, self._arrived - self._broken))
        return Traffic(
            short_requests=self._short[0],
            short_tokens=self._short[1],
            long_requests=self._long[0],
            long_tokens=self._long[1],
            judged_requests=self._short[2],
            missed_requests=self._short[3],
            prompt_tokens=self._prompt,
            prompt_spread=max(0.0, self._prompt_square / square - 1) if square else 0.0,
            # As of times to failure: time that all have run, by failures. The mean of those that ended would be that
            # of short ones while load rises.
            output_tokens=self._made / answers if answers else 0.0,
        )

    def _count(self, now_s: float, place: int, one: int, more: int) -> None:
        self._pass(now_s)
        for sums in (self._bins[-1], self._short, self._long):
            sums[place] += one
            sums[place + 1] += more

    def _pass(self, now_s: float) -> None:
        """Seconds go by: what they leave behind counts no more."""
        second, bins = int(now_s), self._bins
        if second <= self._second:
            return
        for _ in range(min(second - self._second, LONG_S)):
            for sums, leaving in ((self._short, bins[-SHORT_S]), (self._long, bins[0])):
                if leaving[0] or leaving[2]:
                    for place in range(4):
                        sums[place] -= leaving[place]
            bins.append([0] * 4)
        self._second = second
