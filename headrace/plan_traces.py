"""What load does a recorded trace hold? Mean lengths, and the rate of its fullest minute."""

from dataclasses import dataclass
from pathlib import Path

from headrace.failure import bad_input
from simulation.trace import BadTrace, Trace
from simulation.trace import read as read_trace

MINUTE_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What a trace asks of a model."""

    requests: int
    span_s: float
    """From the first arrival to the last."""
    prompt_tokens: int
    """In the mean, as all lengths here; at least 1."""
    output_tokens: int
    longest_tokens: int
    """Prompt and answer together, of the longest request."""
    mean_rate_per_s: float
    peak_rate_per_s: float
    """Of the 60 s in which most requests came; of the whole trace where it is shorter."""


def read(path: Path) -> Load:
    """The load of a trace, in any form that `simulation.trace` reads. Raises Failure."""
    try:
        return load(read_trace(path))
    except BadTrace as error:
        raise bad_input(f"--trace: {path}: {error}") from None


def load(trace: Trace) -> Load:
    """The load of at least two requests. Raises Failure where all came at the same time."""
    span_s, count = trace.span_s, trace.requests
    if span_s <= 0:
        raise bad_input("--trace: all requests came at the same time: no rate follows from it")
    return Load(
        requests=count,
        span_s=span_s,
        prompt_tokens=max(1, round(float(trace.prompt_tokens.mean()))),
        output_tokens=max(1, round(float(trace.output_tokens.mean()))),
        longest_tokens=int((trace.prompt_tokens + trace.output_tokens).max()),
        mean_rate_per_s=count / span_s,
        peak_rate_per_s=_most_within(trace.at_s.tolist(), MINUTE_S) / min(MINUTE_S, span_s),
    )


def _most_within(times: list[float], window_s: float) -> int:
    """The most arrivals in any window; `times` in order."""
    most, first = 0, 0
    for last, time_s in enumerate(times):
        while time_s - times[first] >= window_s:
            first += 1
        most = max(most, last - first + 1)
    return most
