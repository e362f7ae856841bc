"""What does the scaler see of one model at one moment?"""

from dataclasses import dataclass, field

from autoscaling.step_costs import StepCosts
from autoscaling.traffic import Traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLoad:
    """What one running engine replica last reported."""

    id: str
    running_requests: int
    waiting_requests: int
    slots: int
    """Requests that it runs at once, at most."""
    waiting_tokens: int = 0
    """Prompt tokens of its requests that have no first token yet."""
    kv_tokens: int = 0
    """That its cache holds; 0: unknown."""
    kv_used_tokens: int = 0
    costs: StepCosts | None = None
    """Of its steps, measured; None before the first."""
    computed_share: float = 1.0
    """Of its prompts' tokens that it had to compute: the rest was in the cache."""
    busy_share: float | None = None
    """Of the last seconds that it spent in steps."""
    gpu_busy_share: float | None = None
    """Of the last second in which its GPUs computed, whoever asked them; None without GPUs."""
    gpu_memory_share: float | None = None
    """Of its GPUs' memory that is taken, by whomever."""

    @property
    def usable_share(self) -> float:
        """Of its GPUs' time: what others on the same GPUs take is not there for its steps."""
        if self.gpu_busy_share is None or self.busy_share is None:
            return 1.0
        foreign = self.gpu_busy_share - self.busy_share
        return 1.0 - foreign if foreign > FOREIGN_SHARE else 1.0


FOREIGN_SHARE = 0.2
"""Below it the two shares are of different seconds, and tell nothing of others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """One model's replicas, queue and bounds."""

    now_s: float
    replicas: tuple[ReplicaLoad | None, ...]
    """One for each running replica; None for one that is silent."""
    starting: int
    """Replicas that are wanted already but do not run yet."""
    queued_requests: int
    """Waiting in the routers that report."""
    queued_tokens: int = 0
    """Of their prompts."""
    traffic: Traffic = field(default_factory=Traffic)
    """Of the routers that report."""
    min_replicas: int
    max_replicas: int
    silent_routers: int = 0
    """Routers whose queue is unknown."""
    heard: tuple[ReplicaLoad, ...] = field(init=False, repr=False, compare=False)
    """The loads of the replicas that are not silent."""

    def __post_init__(self) -> None:
        if min(self.starting, self.queued_requests, self.queued_tokens, self.min_replicas, self.silent_routers) < 0:
            for name in ("starting", "queued_requests", "queued_tokens", "min_replicas", "silent_routers"):
                if getattr(self, name) < 0:
                    raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas must be >= min_replicas {self.min_replicas}, got {self.max_replicas}")
        object.__setattr__(self, "heard", tuple([load for load in self.replicas if load is not None]))

    @property
    def present(self) -> int:
        """Replicas that run or start."""
        return len(self.replicas) + self.starting

    def within_bounds(self, replicas: int) -> int:
        """The nearest allowed number of replicas."""
        return max(self.min_replicas, min(self.max_replicas, replicas))
