"""What does the owner of a fleet ask for?"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Promises to users, and how much reserve they are kept with."""

    ttft_s: float = 1.0
    """Seconds from a request's arrival to its first token."""
    token_s: float = 0.05
    """Seconds from one token of an answer to the next, in the mean over an answer."""
    attainment: float = 0.99
    """Share of requests that should meet both."""
    target_utilization: float = 0.8
    """Share of a replica's time, slots and cache that load may take, before what was missed corrects it."""
    hold_s: float = 60.0
    """Seconds for which the largest recent wish is kept before going down; a start's seconds where those are more."""

    def __post_init__(self) -> None:
        for name in ("ttft_s", "token_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number of seconds above 0, got {getattr(self, name)}")
        for name in ("attainment", "target_utilization"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, got {getattr(self, name)}")
        if not 0 <= self.hold_s < math.inf:
            raise ValueError(f"hold_s must be a number of seconds >= 0, got {self.hold_s}")
