"""How many replicas would others have? The scaling laws of serving systems, by their formulas and defaults.

Read in the systems' own files (Ray 2.60, SkyPilot 0.14.1, AIBrix, llm-d, Dynamo 1.6.1, production-stack; 2026).
They are asked once a second and keep to their own periods; each has one knob that its owner would turn.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

from simulation.policy import Observed, Policy

Samples = tuple[tuple[float, float], ...]
"""Seconds and values, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a law says."""

    replicas: int
    reason: str


def ray_default(seen: Observed, memory: Any, *, knob: float = 2.0) -> tuple[Wanted, Any]:
    """Ray Serve: n * ongoing / (target * n), with the mean of 30 s; up after 30 s of agreement, down after 600 s.

    `knob`: ongoing requests of a replica (target_ongoing_requests; 2 is the library's default).
    """
    fleet = seen.fleet
    samples, since_s, direction = memory or ((), fleet.now_s, 0)
    samples = _last(samples, fleet.now_s, _ongoing(seen), 30.0)
    present, mean = fleet.present, _mean(samples)
    if not present:
        return Wanted(replicas=min(1, ceil(_ongoing(seen))), reason="the first request"), (samples, fleet.now_s, 0)
    wanted = ceil(mean / knob)
    now = (wanted > present) - (wanted < present)
    if now != direction:
        since_s, direction = fleet.now_s, now
    waited_s = fleet.now_s - since_s
    if not now or waited_s < (30.0 if now > 0 else 600.0):
        wanted = present
    return Wanted(replicas=wanted, reason=f"{mean:.1f} ongoing requests, {knob:g} a replica"), (
        samples,
        since_s,
        direction,
    )


def keda_waiting(seen: Observed, memory: Any, *, knob: float = 5.0) -> tuple[Wanted, Any]:
    """production-stack: KEDA on vllm:num_requests_waiting, looked at each 15 s; ceil(waiting / threshold), at least 1,
    and down to the most of the last 300 s (the HPA's own default).

    `knob`: the threshold.
    """
    fleet = seen.fleet
    wishes: Samples
    wishes, looked_s = memory or ((), -15.0)
    if fleet.now_s - looked_s >= 15.0:
        looked_s = fleet.now_s
        wishes = _last(wishes, fleet.now_s, max(1, ceil(_waiting(seen) / knob)), 300.0)
    most = int(max(value for _, value in wishes))
    return Wanted(replicas=most, reason=f"{_waiting(seen):.0f} requests wait, {knob:g} a replica"), (wishes, looked_s)


def aibrix_kpa(seen: Observed, memory: Any, *, knob: float = 16.0) -> tuple[Wanted, Any]:
    """AIBrix's KPA: each 10 s ceil(mean of 180 s / target), at most doubled and halved; while the mean of 60 s is above
    twice that of 180 s, by the former and never down. Down after 300 s.

    `knob`: requests of a replica.
    """
    fleet, present = seen.fleet, seen.fleet.present
    samples, wishes, looked_s = memory or ((), (), -10.0)
    samples = _last(samples, fleet.now_s, _ongoing(seen), 180.0)
    if fleet.now_s - looked_s >= 10.0:
        looked_s = fleet.now_s
        stable = _mean(samples)
        panic = _mean(tuple(one for one in samples if one[0] > fleet.now_s - 60.0))
        panics = panic > 2 * stable > 0
        wanted = ceil((panic if panics else stable) / knob)
        wanted = max(floor(present / 2), min(max(1, 2 * present), wanted))
        wishes = _last(wishes, fleet.now_s, max(wanted, present) if panics else wanted, 300.0)
    most = int(max(value for _, value in wishes))
    return Wanted(replicas=most, reason=f"{_ongoing(seen):.0f} requests, {knob:g} a replica"), (
        samples,
        wishes,
        looked_s,
    )


def aibrix_apa(seen: Observed, memory: Any, *, knob: float = 16.0) -> tuple[Wanted, Any]:
    """AIBrix's APA: each 10 s the mean of 180 s / target; above 1.1 up by it, at most to twice as many; below 0.9 down
    by it, at most to half. Down after 300 s.

    `knob`: requests of a replica.
    """
    fleet, present = seen.fleet, seen.fleet.present
    samples, wishes, looked_s = memory or ((), (), -10.0)
    samples = _last(samples, fleet.now_s, _ongoing(seen), 180.0)
    if fleet.now_s - looked_s >= 10.0:
        looked_s = fleet.now_s
        mean, wanted = _mean(samples), present
        ratio = mean / (knob * present) if present else 0.0
        if not present:
            wanted = min(1, ceil(mean))
        elif ratio > 1.1:
            wanted = min(2 * present, ceil(present * ratio))
        elif ratio < 0.9:
            wanted = max(present // 2, ceil(present * ratio))
        wishes = _last(wishes, fleet.now_s, wanted, 300.0)
    most = int(max(value for _, value in wishes))
    return Wanted(replicas=most, reason=f"{_ongoing(seen):.0f} requests, {knob:g} a replica"), (
        samples,
        wishes,
        looked_s,
    )


def llmd_slo(seen: Observed, memory: Any, *, knob: float = 0.55, ttft_s: float = 3.0, token_s: float = 0.1) -> Any:
    """llm-d's SLO law: s = the mean of 45 s of min(2, max(p90 TTFT / target, p90 time per token / target)), p90 over a
    minute; above 0.55 up by n (s c / 0.55 - 1), c the share of replicas that serve; below 0.40 down by
    n (1 - s / 0.40). Up by at most max(n, 4) in 60 s after 30 s, down by 1 in 120 s after 180 s. Looked at each 15 s.

    `knob`: the upper bound; the lower one stays at 0.40 / 0.55 of it.
    """
    fleet, present, now_s = seen.fleet, seen.fleet.present, seen.fleet.now_s
    strains, wishes, moved_s, looked_s, replicas = memory or ((), (), -600.0, -15.0, present)
    if now_s - looked_s < 15.0:
        return Wanted(replicas=present, reason="between two looks"), (strains, wishes, moved_s, looked_s, replicas)
    ttft, token = seen.served.percentile(0.9, last_s=60.0)
    strains = _last(strains, now_s, min(2.0, max(ttft / ttft_s, token / token_s)), 45.0)
    strain, low, wanted = _mean(strains), knob * 0.40 / 0.55, present
    serving = len(fleet.replicas) / present if present else 1.0
    if not present:
        wanted = min(1, ceil(_ongoing(seen)))
    elif strain * serving > knob:
        wanted = present + ceil(present * (strain * serving / knob - 1))
    elif strain < low:
        wanted = max(1, present - floor(present * (1 - strain / low)))
    wishes = _last(wishes, now_s, wanted, 180.0)
    lowest = min(value for at_s, value in wishes if at_s > now_s - 30.0)
    highest = max(value for _, value in wishes)
    if not present:
        replicas = wanted
    elif lowest > present and now_s - moved_s >= 60.0:
        replicas, moved_s = min(int(lowest), present + max(present, 4)), now_s
    elif highest < present and now_s - moved_s >= 120.0:
        replicas, moved_s = present - 1, now_s
    else:
        replicas = present
    reason = f"strain {strain:.2f}, bounds {low:.2f} and {knob:.2f}"
    return Wanted(replicas=replicas, reason=reason), (strains, wishes, moved_s, now_s, replicas)


def dynamo_load(seen: Observed, memory: Any, *, knob: float = 1.0, ttft_s: float = 0.5, token_s: float = 0.05) -> Any:
    """Dynamo's load loop, each 5 s: one more where every engine's estimated TTFT, or time per token, is above its
    target; one fewer where, with the load of n / (n - 1), what waits takes less than 0.8 of what TTFT leaves beside
    the prompt's own time, a token less than 0.8 of its target, and the cache suffices. Nothing while replicas start.

    `knob`: by which both targets are multiplied.
    """
    fleet, present = seen.fleet, seen.fleet.present
    looked_s = -5.0 if memory is None else memory
    if fleet.now_s - looked_s < 5.0:
        return Wanted(replicas=present, reason="between two looks"), looked_s
    if not present or fleet.starting:
        return Wanted(replicas=max(present, min(1, ceil(_ongoing(seen)))), reason="starting"), fleet.now_s
    each = [_estimate(seen, place) for place in range(len(fleet.heard))]
    ttft_s, token_s = knob * ttft_s, knob * token_s
    wanted = present
    if all(queue_s + own_s > ttft_s for queue_s, own_s, _, _ in each) or all(one[2] > token_s for one in each):
        wanted = present + 1
    elif present > 1:
        more = present / (present - 1)
        spare = all(
            queue_s * more < 0.8 * (ttft_s - own_s) and step_s * more < 0.8 * token_s and share * more < 1
            for queue_s, own_s, step_s, share in each
        )
        wanted = present - spare
    return Wanted(replicas=wanted, reason=f"{len(each)} engines estimated"), fleet.now_s


def skyserve_qps(seen: Observed, memory: Any, *, knob: float = 2.0) -> tuple[Wanted, Any]:
    """SkyServe: ceil(requests/s of 60 s / target), each 20 s, or 5 s without replicas; up after 300 s of agreement,
    down after 1,200 s.

    `knob`: requests per second of a replica.
    """
    fleet, present = seen.fleet, seen.fleet.present
    looked_s, since_s, direction = memory or (-20.0, fleet.now_s, 0)
    per_s = fleet.traffic.long_requests / 60
    reason = f"{per_s:.2f} requests/s, {knob:g} a replica"
    if fleet.now_s - looked_s < (20.0 if present else 5.0):
        return Wanted(replicas=present, reason=reason), (looked_s, since_s, direction)
    wanted = ceil(per_s / knob)
    now = (wanted > present) - (wanted < present)
    if now != direction:
        since_s, direction = fleet.now_s, now
    if present and fleet.now_s - since_s < (300.0 if now > 0 else 1200.0):
        wanted = present
    return Wanted(replicas=wanted, reason=reason), (fleet.now_s, since_s, direction)


Law = Callable[..., tuple[Wanted, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A law, and the values of its knob that are tried where it is compared."""

    law: Law
    usual: float
    knobs: tuple[float, ...]

    def policy(self, knob: float | None = None) -> Policy:
        """With its default, or another value."""
        value = self.usual if knob is None else knob
        return lambda seen, memory: self.law(seen, memory, knob=value)


BASELINES = {
    "ray": Baseline(law=ray_default, usual=2.0, knobs=(2, 4, 8, 16, 32, 64)),
    "keda": Baseline(law=keda_waiting, usual=5.0, knobs=(0.5, 1, 2, 5, 10, 20)),
    "kpa": Baseline(law=aibrix_kpa, usual=16.0, knobs=(2, 4, 8, 16, 32, 64)),
    "apa": Baseline(law=aibrix_apa, usual=16.0, knobs=(2, 4, 8, 16, 32, 64)),
    "llmd": Baseline(law=llmd_slo, usual=0.55, knobs=(0.05, 0.1, 0.2, 0.35, 0.55, 0.8)),
    "dynamo": Baseline(law=dynamo_load, usual=1.0, knobs=(0.25, 0.5, 0.75, 1, 1.5, 2)),
    "skyserve": Baseline(law=skyserve_qps, usual=2.0, knobs=(0.5, 1, 2, 4, 8, 16)),
}
"""By the names that `--policy` takes."""


def _ongoing(seen: Observed) -> float:
    engines = sum([load.running_requests + load.waiting_requests for load in seen.fleet.heard])
    return engines + seen.fleet.queued_requests


def _waiting(seen: Observed) -> float:
    """In engines and in the router: where no router holds requests back, all of them wait in engines."""
    return sum([load.waiting_requests for load in seen.fleet.heard]) + seen.fleet.queued_requests


def _last(samples: Samples, now_s: float, value: float, window_s: float) -> Samples:
    first = 0
    while first < len(samples) and samples[first][0] <= now_s - window_s:
        first += 1
    return (*samples[first:], (now_s, value))


def _mean(samples: Samples) -> float:
    return sum([value for _, value in samples]) / len(samples) if samples else 0.0


def _estimate(seen: Observed, place: int) -> tuple[float, float, float, float]:
    """Of one engine: seconds of what waits there, of a prompt of usual length, of a step, and its cache's share."""
    fleet = seen.fleet
    load = fleet.heard[place]
    costs = load.costs
    if costs is None:
        return 0.0, 0.0, 0.0, 0.0
    tokens = load.waiting_tokens + fleet.queued_tokens / len(fleet.heard)
    own_s = costs.step_s + costs.prompt_token_s * fleet.traffic.prompt_tokens
    step_s = costs.step_s + costs.sequence_s * load.running_requests
    return costs.prompt_token_s * tokens, own_s, step_s, load.kv_used_tokens / max(1, load.kv_tokens)
