"""What is simulated: which engines, how they start and fail, and what may be asked of them?"""

from dataclasses import dataclass
from math import inf

from cluster.engine_memory import EngineSettings
from cluster.service import StepSeconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One model's fleet."""

    settings: EngineSettings
    kv_blocks: int
    """Of each engine's cache."""
    step: StepSeconds
    """How long an engine's step takes."""
    plans_ahead: bool = True
    """vLLM's async scheduling; not on CPUs."""
    devices: int = 1
    """Of each replica: each is paid for."""
    startup_s: float = 60.0
    """From the decision to the first request."""
    starts_s: tuple[float, ...] = ()
    """The same of each of the first replicas, where it is known."""
    failure_s: float = inf
    """Mean time of a replica from its start to its failure; failures come by chance."""
    min_replicas: int = 0
    max_replicas: int = 64
    begins_with: int = 1
    """Replicas that serve when the trace begins."""
    dispatch_s: float = 0.02
    """Least time between two looks of a router for credit while something waits."""
    max_queued_requests: int = 1 << 30
    """That the router keeps before it refuses more."""
    slowness: tuple[float, ...] = ()
    """Of the first replicas: how many times as long their steps take."""

    def __post_init__(self) -> None:
        if not 0 <= self.startup_s < inf:
            raise ValueError(f"startup_s must be a number of seconds >= 0, got {self.startup_s}")
        if not 0 <= self.min_replicas <= self.begins_with <= self.max_replicas:
            raise ValueError(
                f"begins_with must be within {self.min_replicas} and {self.max_replicas}, got {self.begins_with}"
            )

    def start_of(self, number: int) -> float:
        """Seconds that a replica takes to start; they are counted from 1 as they are asked for."""
        return self.starts_s[number - 1] if number <= len(self.starts_s) else self.startup_s

    def step_of(self, number: int) -> StepSeconds:
        """How long the steps of a replica take; they are counted from 1 as they are asked for."""
        step = self.step
        if number > len(self.slowness):
            return step
        times = self.slowness[number - 1]
        return lambda chunks: times * step(chunks)
