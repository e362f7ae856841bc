"""How many replicas does a demand need, by each currency?"""

from dataclasses import dataclass
from math import ceil, exp, sqrt

from autoscaling.capacity import Capacity
from autoscaling.demand import Demand, time_share
from autoscaling.targets import Targets
from autoscaling.traffic import Traffic

MOST_FOR_WAITS = 8
"""Replicas that the wait for a first token alone may add."""
ROUNDING = 1e-9
"""21 requests on replicas of 3 slots at 0.7 need 10 replicas, though 21 / (3 * 0.7) is 10.000000000000002."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Whole replicas, by what asks for them."""

    time: int
    """Steps that are quick enough for each token, and time for prompts and what waits."""
    slots: int
    cache: int

    @property
    def most(self) -> int:
        return max(self.time, self.slots, self.cache)

    @property
    def binding(self) -> str:
        """What asks for most."""
        return max(("time", "slots", "cache"), key=lambda name: getattr(self, name))


def needs(
    demand: Demand, capacity: Capacity, traffic: Traffic, targets: Targets, *, drain_s: float, factor: float
) -> Needs:
    """For `factor` times the demand, of which what waits should be gone within `drain_s`."""
    slots = factor * demand.requests / (capacity.slots * targets.target_utilization)
    cache = factor * demand.kv_tokens / (capacity.kv_tokens * targets.target_utilization) if capacity.kv_tokens else 0.0
    time = 0
    if capacity.costs:
        share = time_share(capacity, targets)
        time = _whole((factor * demand.work_share + demand.backlog_s / drain_s) / share)
        time = _prompt_enough(time, demand, capacity, traffic, targets, factor)
    return Needs(time=time, slots=_whole(slots), cache=_whole(cache))


def late_share(
    replicas: int, demand: Demand, capacity: Capacity, traffic: Traffic, targets: Targets, factor: float = 1.0
) -> float:
    """Of first tokens that come later than ttft_s, were requests to come by chance.

    Prompts wait for one of c engines that read one at a time: Sakasegawa's share of those that wait (1977, doi
    10.1007/BF02480265), and an exponential tail of Kingman's mean for the spread of lengths.
    """
    costs = capacity.costs
    if costs is None or replicas < 1:
        return 0.0 if demand.is_nothing else 1.0
    busy = factor * demand.work_share / replicas
    decoding = factor * costs.sequence_s * demand.output_tokens_per_s / capacity.usable_share / replicas
    if busy >= 1 or decoding >= 1:
        return 1.0
    reading_s = costs.prompt_token_s * traffic.prompt_tokens * capacity.computed_share / capacity.usable_share
    patience_s = targets.ttft_s - (costs.step_s + reading_s) / (1 - decoding)
    if patience_s <= 0:
        return 1.0
    waiting = busy ** (sqrt(2 * (replicas + 1)) - 1)
    mean_s = (1 + traffic.prompt_spread) * reading_s / (2 * replicas * (1 - busy))
    return waiting * exp(-patience_s / mean_s) if mean_s else 0.0


def _prompt_enough(
    least: int, demand: Demand, capacity: Capacity, traffic: Traffic, targets: Targets, factor: float
) -> int:
    """The fewest from `least` on with which late first tokens stay within what may be missed."""
    costs = capacity.costs
    if not demand.work_share or costs is None:
        return least
    alone_s = costs.step_s + costs.prompt_token_s * traffic.prompt_tokens * capacity.computed_share
    if alone_s >= targets.ttft_s:
        return least  # more replicas make no prompt of usual length quick enough
    allowed = max(1 - targets.attainment, 1e-4)
    for replicas in range(max(1, least), least + MOST_FOR_WAITS):
        if late_share(replicas, demand, capacity, traffic, targets, factor) <= allowed:
            return replicas
    return least + MOST_FOR_WAITS


def _whole(replicas: float) -> int:
    return ceil(replicas - ROUNDING)
