"""What do users ask of a model's replicas, in each currency, when a replica asked for now would serve?"""

from dataclasses import dataclass
from math import sqrt

from autoscaling.capacity import Capacity
from autoscaling.fleet import Fleet
from autoscaling.memory import Backlog, Memory
from autoscaling.step_costs import StepCosts
from autoscaling.targets import Targets
from autoscaling.traffic import LONG_S, SHORT_S, Traffic

LEAST_SHARE = 0.25
"""Of a replica's time that load may take at least: a token target that even an idle engine misses asks for no more."""

TOKEN_SHARE = 0.6
"""Of the token target that a step takes in the mean: long prompts stall some steps, and most answers should meet it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is asked for, and what is already there."""

    prompt_tokens_per_s: float
    """To be computed: without what the cache is expected to hold."""
    output_tokens_per_s: float
    work_share: float
    """Seconds of engines for both, each second, beside what steps cost anyway."""
    backlog_s: float
    """Seconds of engines for what will wait when a replica asked for now serves."""
    queued_s: float
    """Seconds of engines for what waits now."""
    requests: float
    """That run, and those of what waits for longer than a moment that will run at the same time."""
    kv_tokens: float
    """That these hold and will hold."""

    @property
    def is_nothing(self) -> bool:
        return not (self.work_share or self.requests)


def foreseen(fleet: Fleet, memory: Memory, targets: Targets, *, silent_are_full: bool) -> Demand:
    """By arrivals of the last minute, or of the last SHORT_S where those are more by more than chance, and by what
    waits. A silent replica counts as empty, or as full.
    """
    capacity, traffic, waits = memory.capacity, fleet.traffic, memory.backlogs[-1]
    # Nothing that waits goes by itself where nobody serves; where no step was measured, nobody knows.
    standing = memory.standing() if fleet.present and capacity and capacity.costs else waits
    rises = _certain_share(traffic.short_requests, traffic.prompt_spread)
    requests_per_s = max(traffic.long_requests / LONG_S, rises * traffic.short_requests / SHORT_S)
    tokens_per_s = max(traffic.long_tokens / LONG_S, rises * traffic.short_tokens / SHORT_S)
    computed = capacity.computed_share if capacity else 1.0
    silent = fleet.present - fleet.starting - len(fleet.heard) if silent_are_full else 0
    running = sum([load.running_requests for load in fleet.heard]) + (silent * capacity.slots if capacity else 0)
    # Those that run want a token each token_s.
    outputs = max(requests_per_s * traffic.output_tokens, running / targets.token_s)
    prompts = tokens_per_s * computed
    work = queued = backlog = 0.0
    if capacity and (costs := capacity.costs):
        work = costs.work_s(prompts, outputs) / capacity.usable_share
        stands = 0.0
        if waits.requests:
            queued = _work_s(waits, capacity, costs, traffic)
            stands = _work_s(standing, capacity, costs, traffic)
        backlog = max(stands, queued + _growth_s(fleet, memory, work, time_share(capacity, targets)))
    at_once = _share_at_once(capacity, traffic, targets, memory.drain_s)
    used = sum([load.kv_used_tokens for load in fleet.heard]) + (silent * capacity.kv_tokens if capacity else 0)
    return Demand(
        prompt_tokens_per_s=prompts,
        output_tokens_per_s=outputs,
        work_share=work,
        backlog_s=backlog,
        queued_s=queued,
        requests=running + at_once * standing.requests,
        kv_tokens=used + at_once * _held(standing, traffic.output_tokens),
    )


def time_share(capacity: Capacity, targets: Targets) -> float:
    """Of a replica's time that load may take.

    With a share r of it taken by tokens, a step of step_s takes step_s / (1 - r): that should stay within TOKEN_SHARE
    of token_s.
    """
    if capacity.costs is None:
        return targets.target_utilization
    return max(
        LEAST_SHARE, min(targets.target_utilization, 1 - capacity.costs.step_s / (TOKEN_SHARE * targets.token_s))
    )


def _certain_share(requests: float, spread: float) -> float:
    """Of a rate that was counted on so many requests: less its standard error, were they to come by chance.

    A sum of k independent parts has a relative variance of (1 + spread) / k (a compound Poisson process).
    """
    return max(0.0, 1 - sqrt((1 + spread) / requests)) if requests else 0.0


def _growth_s(fleet: Fleet, memory: Memory, work_share: float, share: float) -> float:
    """Seconds of engines by which what waits grows, or shrinks, until a replica asked for now serves.

    One that is starting serves for as long of that as ago it was asked for.
    """
    startup_s = memory.startup_s
    running_s = len(fleet.replicas) * startup_s
    starting_s = sum([min(startup_s, max(0.0, fleet.now_s - at_s)) for at_s in memory.asked_s])
    return work_share * startup_s - share * (running_s + starting_s)


def _work_s(waits: Backlog, capacity: Capacity, costs: StepCosts, traffic: Traffic) -> float:
    """Of engines, for what waits."""
    work_s = costs.work_s(waits.tokens * capacity.computed_share, waits.requests * traffic.output_tokens)
    return work_s / capacity.usable_share


def _share_at_once(capacity: Capacity | None, traffic: Traffic, targets: Targets, drain_s: float) -> float:
    """Of what waits: how much of it runs at the same time, if it is served evenly over `drain_s`.

    By Little's law, each for as long as its tokens take in steps of replicas that have as much to do as they may; all
    of it while that is unknown.
    """
    if capacity is None or (costs := capacity.costs) is None or not traffic.output_tokens:
        return 1.0
    reading_s = costs.prompt_token_s * traffic.prompt_tokens * capacity.computed_share
    runs_s = (reading_s + traffic.output_tokens * costs.step_s) / (1 - time_share(capacity, targets))
    return min(1.0, runs_s / drain_s)


def _held(waits: Backlog, output_tokens: float) -> float:
    return waits.tokens + waits.requests * output_tokens
