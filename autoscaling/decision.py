"""What was decided, and which numbers are behind it?"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import inf, isfinite
from typing import Any

from autoscaling.capacity import Capacity
from autoscaling.demand import Demand
from autoscaling.fleet import Fleet
from autoscaling.memory import Memory
from autoscaling.needs import Needs, late_share
from autoscaling.targets import Targets

BINDING = {"time": "their time asks", "slots": "their slots ask", "cache": "their cache asks"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What users and replicas would see of the demand."""

    replicas: int
    busy_share: float | None
    """Of replicas' time that tokens take; at 1 and above what waits grows. None while no step was measured."""
    token_s: float | None
    """From one token of an answer to the next; infinite where what waits grows."""
    late_share: float | None
    """Of first tokens that come later than ttft_s, were requests to come by chance."""
    slots_share: float
    """Of all slots; above 1 a part of the requests waits."""
    kv_share: float | None
    """Of all caches; None: unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A number of replicas and the numbers behind it."""

    fleet: Fleet
    memory: Memory
    """After the decision."""
    targets: Targets
    replicas: int
    wish: int
    """What the load of this moment alone asks for, before the bounds."""
    needs: Needs | None
    """None while no replica ever spoke."""
    demand: Demand

    @property
    def present(self) -> int:
        """Replicas that ran or were starting."""
        return self.fleet.present

    @property
    def capacity(self) -> Capacity | None:
        """Of one replica; None while no replica ever spoke."""
        return self.memory.capacity

    @property
    def expected(self) -> Outlook | None:
        """With the replicas decided. None: unknown, or there are none."""
        return self.outlook(self.replicas)

    @property
    def one_fewer(self) -> Outlook | None:
        """What one replica fewer would have meant. None: unknown, or none would be left."""
        return self.outlook(self.replicas - 1)

    def outlook(self, replicas: int) -> Outlook | None:
        """With so many replicas. None: unknown, or there are none."""
        capacity, demand = self.capacity, self.demand
        if capacity is None or replicas < 1:
            return None
        busy = token_s = late = None
        if capacity.costs:
            busy = demand.work_share / replicas
            token_s = capacity.costs.step_s / (1 - busy) if busy < 1 else inf
            late = late_share(replicas, demand, capacity, self.fleet.traffic, self.targets)
        return Outlook(
            replicas=replicas,
            busy_share=busy,
            token_s=token_s,
            late_share=late,
            slots_share=demand.requests / (capacity.slots * replicas),
            kv_share=demand.kv_tokens / (capacity.kv_tokens * replicas) if capacity.kv_tokens else None,
        )

    @property
    def reason(self) -> str:
        """The numbers in one line."""
        return "; ".join([f"{self.present} -> {self.replicas} replicas", *self._asked(), *self._why()])

    def to_json(self) -> dict[str, Any]:
        """What is kept of it, as values that json can write: None for what is not finite."""
        expected, fewer = self.expected, self.one_fewer
        return {
            "at_s": self.fleet.now_s,
            "replicas": self.replicas,
            "present": self.present,
            "wish": self.wish,
            "needs": self.needs and asdict(self.needs),
            "demand": _finite(asdict(self.demand)),
            "correction": self.memory.correction,
            "startup_s": self.memory.started_s,
            "expected": expected and _finite(asdict(expected)),
            "one_fewer": fewer and _finite(asdict(fewer)),
            "reason": self.reason,
        }

    def _asked(self) -> Iterator[str]:
        demand, fleet = self.demand, self.fleet
        running = sum(load.running_requests + load.waiting_requests for load in fleet.heard)
        yield f"{running} requests in engines, {fleet.queued_requests} queued"
        if demand.work_share:
            yield (
                f"{demand.prompt_tokens_per_s:,.0f} prompt and {demand.output_tokens_per_s:,.0f} output tokens/s "
                f"keep {demand.work_share:.2f} engines busy"
            )
        if demand.backlog_s >= 0.1:
            yield f"{demand.backlog_s:.1f} s of work will wait"
        if self.capacity and self.capacity.kv_tokens:
            yield f"{demand.kv_tokens:,.0f} tokens cached"
        yield from self._gpus()

    def _gpus(self) -> Iterator[str]:
        busy = [load.gpu_busy_share for load in self.fleet.heard if load.gpu_busy_share is not None]
        taken = [load.gpu_memory_share for load in self.fleet.heard if load.gpu_memory_share is not None]
        if busy and taken:
            yield f"GPUs {sum(busy) / len(busy):.0%} busy, {sum(taken) / len(taken):.0%} of their memory taken"

    def _why(self) -> Iterator[str]:
        fleet, memory, held = self.fleet, self.memory, self.memory.largest_wish
        if self.needs is None:
            yield "no replica has spoken yet"
        else:
            yield f"{BINDING[self.needs.binding]} for {self.needs.most}"
        if abs(memory.correction - 1) >= 0.01:
            yield f"of {memory.correction:.2f} times that, by what was missed"
        if fewer := self.one_fewer:
            yield _words(fewer)
        if silent := len(fleet.replicas) - len(fleet.heard):
            yield f"{silent} of {len(fleet.replicas)} replicas silent"
        if fleet.silent_routers:
            yield f"{fleet.silent_routers} routers silent"
        if held.replicas > self.wish:
            yield f"{held.replicas} were wanted {fleet.now_s - held.at_s:.0f} s ago"
        if self.replicas in (fleet.min_replicas, fleet.max_replicas):
            yield f"allowed {fleet.min_replicas} to {fleet.max_replicas}"


def _words(fewer: Outlook) -> str:
    if fewer.busy_share is None or fewer.token_s is None:
        return f"{fewer.replicas} would have {fewer.slots_share:.0%} of their slots taken"
    if fewer.busy_share >= 1:
        return f"{fewer.replicas} would be {fewer.busy_share:.0%} busy and fall behind"
    share = max(fewer.slots_share, fewer.kv_share or 0.0)
    full = f", {share:.0%} full" if share >= fewer.busy_share else ""
    late = f", {fewer.late_share:.1%} of first tokens late" if (fewer.late_share or 0.0) >= 0.0005 else ""
    return f"{fewer.replicas} would be {fewer.busy_share:.0%} busy{full}: {1e3 * fewer.token_s:.0f} ms a token{late}"


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and not isfinite(value) else value for name, value in values.items()}
