"""What did users get in a simulated run, and what did it cost?"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autoscaling import Targets
from simulation.trace import Trace

SHARES = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A decision that changed the number of replicas."""

    at_s: float
    before: int
    replicas: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Of the requests, those that were sent to one variant."""

    name: str
    quality: float
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """Everything that happened, by request and by second."""

    trace: Trace
    first_s: NDArray[np.float64]
    """When each request got its first token; infinite where it never did."""
    last_s: NDArray[np.float64]
    found_tokens: NDArray[np.int32]
    """Of each prompt, what was in the cache when it was read."""
    end_s: float
    """When the last one ended; no earlier than the trace."""
    device_s: float
    """That were paid for: from asking for a replica to its end."""
    running: NDArray[np.int32]
    """Replicas that took requests, at each whole second; likewise the others."""
    present: NDArray[np.int32]
    """With those that were starting or draining."""
    queued: NDArray[np.int32]
    changes: list[Change] = field(repr=False)
    refused: int
    """Turned away at once, or once their deadlines had passed."""
    failures: int
    served: tuple[Served, ...] = ()
    """By variant; nothing where the model alone answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A run in a few numbers. Times in seconds, of requests that were answered."""

    requests: int
    attainment: float
    """Share of requests that met both targets."""
    ttft_met: float
    token_met: float
    ttft_s: dict[str, float]
    """By percentile."""
    token_s: dict[str, float]
    output_tokens_per_s: float
    device_hours: float
    mean_replicas: float
    most_replicas: int
    decisions: int
    """That changed something."""
    refused: int
    failures: int
    unanswered: int
    served: tuple[Served, ...]


def summary(run: Run, targets: Targets) -> Summary:
    """Both targets count for each request: its first token, and its mean from one token to the next."""
    ttft_s, token_s = waits(run)
    answered = np.isfinite(run.last_s)
    early, quick = ttft_s <= targets.ttft_s, token_s <= targets.token_s
    return Summary(
        requests=run.trace.requests,
        attainment=float((early & quick & answered).mean()),
        ttft_met=float((early & answered).mean()),
        token_met=float((quick & answered).mean()),
        ttft_s=_percentiles(ttft_s[answered]),
        token_s=_percentiles(token_s[answered]),
        output_tokens_per_s=float(run.trace.output_tokens[answered].sum() / run.end_s) if run.end_s else 0.0,
        device_hours=run.device_s / 3600,
        mean_replicas=float(run.present.mean()),
        most_replicas=int(run.present.max()),
        decisions=len(run.changes),
        refused=run.refused,
        failures=run.failures,
        unanswered=int((~answered).sum()),
        served=run.served,
    )


def waits(run: Run) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seconds to each request's first token, and from one to the next in the mean; infinite where it got none."""
    ttft_s = run.first_s - run.trace.at_s
    with np.errstate(invalid="ignore"):
        token_s = (run.last_s - run.first_s) / np.maximum(1, run.trace.output_tokens - 1)
    return ttft_s, np.where(np.isfinite(run.last_s), token_s, np.inf)


def _percentiles(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return {}
    return {f"p{100 * share:g}": float(np.quantile(values, share)) for share in SHARES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """A run as it is shown: its numbers, and curves of no more points than a reader sees."""

    summary: Summary
    at_s: list[float]
    """The begin of each span of the curves over time."""
    per_s: list[float]
    """Requests that came."""
    running: list[float]
    """Replicas that took requests, in the mean; likewise the others."""
    present: list[float]
    queued: list[int]
    """The most that waited at any second."""
    met: list[float | None]
    """Share of the requests that came and met both targets; None where none came."""
    ttft_s: list[float]
    """Of requests that were answered, at even shares from 0 to 1."""
    changes: list[Change]
    """The first MOST_CHANGES."""


SPANS = 240
POINTS = 101
MOST_CHANGES = 500


def digest(run: Run, targets: Targets) -> Digest:
    """Over SPANS even spans."""
    seconds = len(run.running)
    width = max(1, -(-seconds // SPANS))
    begins = np.arange(0, seconds, width)
    ttft_s, token_s = waits(run)
    met = (ttft_s <= targets.ttft_s) & (token_s <= targets.token_s)
    places = np.minimum(run.trace.at_s.astype(np.int64) // width, len(begins) - 1)
    came = np.bincount(places, minlength=len(begins))
    good = np.bincount(places, weights=met, minlength=len(begins))
    counts = np.diff(np.append(begins, seconds))
    answered = ttft_s[np.isfinite(run.last_s)]
    return Digest(
        summary=summary(run, targets),
        at_s=begins.astype(float).tolist(),
        per_s=(came / counts).tolist(),
        running=(np.add.reduceat(run.running, begins) / counts).tolist(),
        present=(np.add.reduceat(run.present, begins) / counts).tolist(),
        queued=np.maximum.reduceat(run.queued, begins).tolist(),
        met=[float(one / all_) if all_ else None for one, all_ in zip(good, came, strict=True)],
        ttft_s=np.quantile(answered, np.linspace(0, 1, POINTS)).tolist() if len(answered) else [],
        changes=run.changes[:MOST_CHANGES],
    )
