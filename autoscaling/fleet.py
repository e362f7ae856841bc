"""What does the scaler see of one model at one moment?"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLoad:
    """What one running engine replica last reported."""

    id: str
    running_requests: int
    waiting_requests: int
    slots: int
    """Requests that it runs at once, at most."""


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
    min_replicas: int
    max_replicas: int
    silent_routers: int = 0
    """Routers whose queue is unknown."""

    def __post_init__(self) -> None:
        for name in ("starting", "queued_requests", "min_replicas", "silent_routers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas must be >= min_replicas {self.min_replicas}, got {self.max_replicas}")

    @property
    def heard(self) -> tuple[ReplicaLoad, ...]:
        """The loads of the replicas that are not silent."""
        return tuple(load for load in self.replicas if load is not None)

    @property
    def present(self) -> int:
        """Replicas that run or start."""
        return len(self.replicas) + self.starting

    @property
    def demand_requests(self) -> int:
        """Requests known of: running and waiting in engines, queued in routers."""
        in_engines = sum(load.running_requests + load.waiting_requests for load in self.heard)
        return in_engines + self.queued_requests

    def within_bounds(self, replicas: int) -> int:
        """The nearest allowed number of replicas."""
        return max(self.min_replicas, min(self.max_replicas, replicas))
