"""How many replicas of one model should there be now, and why?"""

import math
from dataclasses import dataclass

from autoscaling.fleet import Fleet
from autoscaling.memory import Memory, Wish

ROUNDING = 1e-9
"""21 requests on replicas of 3 slots at 0.7 need 10 replicas, though 21 / (3 * 0.7) is 10.000000000000002."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What the owner of the fleet asks for."""

    utilization: float = 0.7
    """Share of a replica's request slots that should be busy."""
    hold_s: float = 60.0
    """Seconds for which the largest recent wish is kept before going down."""

    def __post_init__(self) -> None:
        if not 0 < self.utilization <= 1:
            raise ValueError(f"utilization must be above 0 and at most 1, got {self.utilization}")
        if not 0 <= self.hold_s < math.inf:
            raise ValueError(f"hold_s must be a number of seconds >= 0, got {self.hold_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A number of replicas and the numbers behind it."""

    replicas: int
    reason: str
    """The same numbers in one line."""
    present: int
    """Replicas that ran or were starting."""
    wish: int
    """What the load of this moment alone asks for, before the bounds."""
    demand_requests: int
    slots: float | None
    """Request slots of one replica; None while no replica ever spoke."""
    utilization: float | None
    """Share of all slots that the demand fills with `replicas`; above 1 a part of it waits. None: unknown."""
    one_fewer_utilization: float | None
    """The same with one replica fewer. None: unknown, or none would be left."""


def decide(fleet: Fleet, memory: Memory, targets: Targets) -> tuple[Decision, Memory]:
    """Up at once, down only to the largest wish of the last `hold_s` seconds, always within the bounds.

    The wish is ceil(demand / (slots * utilization)), as in Knative's and Kubernetes' horizontal autoscalers.
    A silent replica counts as empty when the rest asks for more replicas and as full when it asks for fewer;
    where that would turn the direction round, and while a router's queue is unknown, the fleet stays as large
    as it is. The memory returned belongs to the next decision.
    """
    memory = Memory(wishes=memory.wishes, slots=_slots(fleet, memory))
    wish = _wish(fleet, memory.slots, targets.utilization)
    memory = memory.with_wish(Wish(at_s=fleet.now_s, replicas=wish), present=fleet.present, hold_s=targets.hold_s)
    replicas = fleet.within_bounds(memory.largest_wish.replicas)
    decision = Decision(
        replicas=replicas,
        reason=_reason(fleet, memory, targets, wish, replicas),
        present=fleet.present,
        wish=wish,
        demand_requests=fleet.demand_requests,
        slots=memory.slots,
        utilization=_utilization(fleet.demand_requests, memory.slots, replicas),
        one_fewer_utilization=_utilization(fleet.demand_requests, memory.slots, replicas - 1),
    )
    return decision, memory


def _slots(fleet: Fleet, memory: Memory) -> float | None:
    known = [load.slots for load in fleet.heard if load.slots > 0]
    return sum(known) / len(known) if known else memory.slots


def _wish(fleet: Fleet, slots: float | None, utilization: float) -> int:
    if slots is None:
        return max(fleet.present, 1 if fleet.demand_requests else 0)
    silent = len(fleet.replicas) - len(fleet.heard)
    at_least = _needed(fleet.demand_requests, slots * utilization)
    if at_least > fleet.present or fleet.silent_routers:
        return max(at_least, fleet.present)
    at_most = _needed(fleet.demand_requests + silent * slots, slots * utilization)
    return min(at_most, fleet.present)


def _needed(requests: float, requests_per_replica: float) -> int:
    return math.ceil(requests / requests_per_replica - ROUNDING)


def _utilization(demand_requests: int, slots: float | None, replicas: int) -> float | None:
    return demand_requests / (slots * replicas) if slots and replicas > 0 else None


def _reason(fleet: Fleet, memory: Memory, targets: Targets, wish: int, replicas: int) -> str:
    in_engines = fleet.demand_requests - fleet.queued_requests
    parts = [
        f"{fleet.present} -> {replicas} replicas",
        f"{in_engines} requests in engines, {fleet.queued_requests} queued",
    ]
    if memory.slots is None:
        parts.append("no replica has told its slots yet")
    else:
        parts.append(f"{memory.slots:g} slots a replica at {targets.utilization:g} ask for {wish}")
        fewer = _utilization(fleet.demand_requests, memory.slots, replicas - 1)
        if fewer is not None:
            parts.append(f"{replicas - 1} would be {fewer:.0%} busy")
    if silent := len(fleet.replicas) - len(fleet.heard):
        parts.append(f"{silent} of {len(fleet.replicas)} replicas silent")
    if fleet.silent_routers:
        parts.append(f"{fleet.silent_routers} routers silent")
    held = memory.largest_wish
    if held.replicas > wish:
        age_s = fleet.now_s - held.at_s
        parts.append(f"{held.replicas} were wanted {age_s:.0f} s ago, kept for {targets.hold_s:g} s")
    if replicas in (fleet.min_replicas, fleet.max_replicas):
        parts.append(f"allowed {fleet.min_replicas} to {fleet.max_replicas}")
    return "; ".join(parts)
