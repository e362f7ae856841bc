"""How many replicas of one model should there be now, and why?"""

from dataclasses import replace

from autoscaling.correction import corrected
from autoscaling.decision import Decision
from autoscaling.demand import Demand, foreseen
from autoscaling.fleet import Fleet
from autoscaling.memory import Memory, Wish
from autoscaling.needs import Needs, needs
from autoscaling.targets import Targets

BAND = 1.1
"""A replica goes when the rest could bear so much more: noise around a boundary moves nothing."""


def decide(fleet: Fleet, memory: Memory, targets: Targets) -> tuple[Decision, Memory]:
    """Up at once, down only to the largest wish of the last `hold_s` seconds, always within the bounds.

    The wish is the most that time, slots or cache need for the demand at the moment when a replica asked for now
    would serve, corrected by what users missed. A silent replica counts as empty when the rest asks for more replicas
    and as full when it asks for fewer; where that would turn the direction round, and while a router's queue is
    unknown, the fleet stays as large as it is. The memory returned belongs to the next decision.
    """
    memory = memory.seeing(fleet, corrected(fleet, memory, targets))
    demand = foreseen(fleet, memory, targets, silent_are_full=False)
    wish, needed = _wish(fleet, memory, targets, demand)
    hold_s = max(targets.hold_s, memory.started_s or 0.0)
    memory = memory.with_wish(Wish(at_s=fleet.now_s, replicas=wish), present=fleet.present, hold_s=hold_s)
    replicas = fleet.within_bounds(memory.largest_wish.replicas)
    if replicas > fleet.present:
        memory = replace(memory, asked_s=memory.asked_s + (fleet.now_s,) * (replicas - fleet.present))
    decision = Decision(
        fleet=fleet,
        memory=memory,
        targets=targets,
        replicas=replicas,
        wish=wish,
        needs=needed,
        demand=demand,
    )
    return decision, memory


def _wish(fleet: Fleet, memory: Memory, targets: Targets, demand: Demand) -> tuple[int, Needs | None]:
    some = 1 if demand.requests or fleet.queued_requests or memory.backlogs[-1].requests else 0
    if memory.capacity is None:
        return max(fleet.present, some), None
    all_heard = len(fleet.heard) == len(fleet.replicas)
    fuller = demand if all_heard else foreseen(fleet, memory, targets, silent_are_full=True)
    at_most = _needs(fleet, memory, targets, fuller, memory.correction * BAND)
    if at_most.most <= fleet.present and not fleet.silent_routers:
        return max(at_most.most, some), at_most
    at_least = _needs(fleet, memory, targets, demand, memory.correction)
    return max(at_least.most, fleet.present, some), at_least


def _needs(fleet: Fleet, memory: Memory, targets: Targets, demand: Demand, factor: float) -> Needs:
    assert memory.capacity is not None
    return needs(demand, memory.capacity, fleet.traffic, targets, drain_s=memory.drain_s, factor=factor)
