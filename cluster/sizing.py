"""How many replicas keep the targets at a rate, and what do a million tokens cost?"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from cluster.engine_memory import EngineSettings
from cluster.service import Requests, Service, StepSeconds, capacity_per_s, service, usable_slots

MOST_REPLICAS = 100_000
HOUR_S = 3600.0
BISECTIONS = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """What users are promised, and how many of them come."""

    rate_per_s: float
    requests: Requests
    ttft_s: float = inf
    """95 of 100 first tokens come within it."""
    token_s: float = inf
    """From one token of an answer to the next, in the mean."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizing:
    """Replicas for a rate and its targets."""

    replicas: int | None
    """None where no number of them keeps the targets."""
    replicas_if_faster: int | None
    """The same where every time is shorter by the error."""
    replicas_if_slower: int | None
    each: Service | None
    """One of them, at its share of the rate."""
    capacity_per_s: float
    """Requests that one replica can finish, whatever they wait."""
    reason: str
    """Which target sets the number, or can't be kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What the replicas cost at the rate that they serve."""

    device_hours_per_hour: float
    per_hour: float
    per_million_tokens: float
    """Of prompts and answers together."""
    per_million_output_tokens: float


def size(targets: Targets, *, slots: int, settings: EngineSettings, step: StepSeconds, error: float) -> Sizing:
    """The fewest replicas that keep the targets, with the rate shared out evenly among them.

    `error` is the relative error of `step`: the number is also computed for times that much shorter and longer.
    """
    held = usable_slots(targets.requests, slots=slots, settings=settings)

    def needed(factor: float) -> tuple[int | None, str]:
        return _fewest(targets, lambda rate: _service(targets, rate, held, settings, _scaled(step, factor)))

    replicas, reason = needed(1.0)
    return Sizing(
        replicas=replicas,
        replicas_if_faster=needed(1 / (1 + error))[0],
        replicas_if_slower=needed(1 + error)[0],
        each=None if replicas is None else _service(targets, targets.rate_per_s / replicas, held, settings, step),
        capacity_per_s=capacity_per_s(targets.requests, slots=held, settings=settings, step=step),
        reason=reason,
    )


def most_per_s(targets: Targets, *, slots: int, settings: EngineSettings, step: StepSeconds) -> float:
    """Requests per second that one replica gets and still keeps the targets; 0 where even an idle one does not.

    By bisection: its times never fall when its rate grows. The targets' own rate does not count.
    """
    held = usable_slots(targets.requests, slots=slots, settings=settings)
    low, high = 0.0, capacity_per_s(targets.requests, slots=held, settings=settings, step=step)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        kept = not _missed(targets, _service(targets, middle, held, settings, step))
        low, high = (middle, high) if kept else (low, middle)
    return low


def cost(targets: Targets, *, replicas: int, devices: int, price_per_device_hour: float) -> Cost:
    """Cost of replicas of `devices` devices each. The rate must be above 0."""
    hourly = replicas * devices * price_per_device_hour
    requests = targets.requests
    outputs = targets.rate_per_s * requests.output_tokens * HOUR_S / 1e6
    prompts = targets.rate_per_s * requests.prompt_tokens * HOUR_S / 1e6
    return Cost(
        device_hours_per_hour=replicas * devices,
        per_hour=hourly,
        per_million_tokens=hourly / (outputs + prompts),
        per_million_output_tokens=hourly / outputs,
    )


def _fewest(targets: Targets, at: Callable[[float], Service]) -> tuple[int | None, str]:
    """By doubling, then bisection: a replica's times never grow when its rate falls."""
    if missed := _missed(targets, at(0.0)):
        return None, f"{missed} can't be kept even by an idle replica"
    high = 1
    while _missed(targets, at(targets.rate_per_s / high)):
        high *= 2
        if high > MOST_REPLICAS:
            return None, f"more than {MOST_REPLICAS:,} replicas would be needed"
    low, reason = high // 2, "one replica is enough"
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _missed(targets, at(targets.rate_per_s / middle)) else (low, middle)
    if low:
        reason = f"{low} would miss {_missed(targets, at(targets.rate_per_s / low))}"
    return high, reason


def _missed(targets: Targets, given: Service) -> str:
    """The target that a service does not keep; empty when it keeps all."""
    if given.token_s == inf or given.ttft_s == inf:
        return "the rate itself"
    if given.ttft_p95_s > targets.ttft_s:
        return f"the first token within {targets.ttft_s:g} s ({given.ttft_p95_s:.3g} s)"
    if given.token_s > targets.token_s:
        return f"a token every {1000 * targets.token_s:g} ms ({1000 * given.token_s:.3g} ms)"
    return ""


def _service(targets: Targets, rate_per_s: float, slots: int, settings: EngineSettings, step: StepSeconds) -> Service:
    return service(targets.requests, rate_per_s, slots=slots, settings=settings, step=step)


def _scaled(step: StepSeconds, factor: float) -> StepSeconds:
    return lambda chunks: factor * step(chunks)
