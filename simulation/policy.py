"""What does a scaling policy see, and what does it say?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from autoscaling import Fleet, Targets, decide


class Served(Protocol):
    """How requests that ended lately were served."""

    def percentile(self, share: float, *, last_s: float) -> tuple[float, float]:
        """Of the seconds to the first token and from one token to the next; 0 where none ended."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What live metrics would show at a moment."""

    fleet: Fleet
    served: Served


class Decided(Protocol):
    """What a policy says."""

    @property
    def replicas(self) -> int: ...

    @property
    def reason(self) -> str: ...


Policy = Callable[[Observed, Any], tuple[Decided, Any]]
"""From what is seen and its memory, None at first, to what it says and its memory: asked once a second."""


def headrace(targets: Targets) -> Policy:
    """The policy that Headrace's fleets have."""
    from autoscaling import Memory

    empty = Memory()

    def ask(seen: Observed, memory: Any) -> tuple[Decided, Any]:
        return decide(seen.fleet, memory or empty, targets)

    return ask
