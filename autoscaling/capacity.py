"""What can one replica do, by what replicas measured?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autoscaling.fleet import ReplicaLoad
from autoscaling.step_costs import StepCosts


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Of one replica: the mean of those that were heard, or what is remembered of them."""

    slots: float
    """Requests that it runs at once."""
    kv_tokens: float = 0.0
    """That its cache holds; 0: unknown."""
    costs: StepCosts | None = None
    """Of its steps; None while no step was measured."""
    computed_share: float = 1.0
    """Of prompts' tokens: the rest was found in the cache."""
    usable_share: float = 1.0
    """Of its GPUs' time that is its own."""

    def to_json(self) -> list[Any]:
        """As values that json can write."""
        costs = self.costs and [self.costs.step_s, self.costs.sequence_s, self.costs.prompt_token_s]
        return [self.slots, self.kv_tokens, costs, self.computed_share, self.usable_share]

    @staticmethod
    def from_json(saved: Sequence[Any]) -> "Capacity":
        """What `to_json` gave. Raises TypeError or ValueError when it is something else."""
        slots, kv_tokens, costs, computed, usable = saved
        if costs is not None:
            step_s, sequence_s, prompt_token_s = costs
            costs = StepCosts(step_s=float(step_s), sequence_s=float(sequence_s), prompt_token_s=float(prompt_token_s))
        return Capacity(
            slots=float(slots),
            kv_tokens=float(kv_tokens),
            costs=costs,
            computed_share=float(computed),
            usable_share=float(usable),
        )


def measured(heard: Sequence[ReplicaLoad], known: Capacity | None) -> Capacity | None:
    """By those heard; what none of them tells stays as it was known."""
    speaking = [load for load in heard if load.slots > 0]
    if not (count := len(speaking)):
        return known
    with_cache = [load.kv_tokens for load in speaking if load.kv_tokens > 0]
    costs = [load.costs for load in speaking if load.costs is not None]
    return Capacity(
        slots=sum([load.slots for load in speaking]) / count,
        kv_tokens=sum(with_cache) / len(with_cache) if with_cache else known.kv_tokens if known else 0.0,
        costs=_mean_costs(costs) if costs else known.costs if known else None,
        computed_share=sum([load.computed_share for load in speaking]) / count,
        usable_share=sum([load.usable_share for load in speaking]) / count,
    )


def _mean_costs(each: Sequence[StepCosts]) -> StepCosts:
    count, first = len(each), each[0]
    if each.count(first) == count:
        return first
    return StepCosts(
        step_s=sum(costs.step_s for costs in each) / count,
        sequence_s=sum(costs.sequence_s for costs in each) / count,
        prompt_token_s=sum(costs.prompt_token_s for costs in each) / count,
    )
