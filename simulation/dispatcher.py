"""What does a simulated fleet ask of whoever sends its requests to replicas?"""

from collections.abc import Iterable
from typing import Protocol

from simulation.decodes import Sequence
from simulation.replica import Replica
from simulation.setup import Setup


class Dispatcher(Protocol):
    """One router of one model."""

    @property
    def tokens(self) -> int:
        """Of prompts that wait."""
        ...

    def __len__(self) -> int:
        """Requests that wait."""
        ...

    def enter(self, sequence: Sequence) -> bool:
        """Whether it was let in."""
        ...

    def again(self, sequences: Iterable[Sequence]) -> None:
        """What a lost replica had waits again."""
        ...

    def dispatch(self, replicas: list[Replica], now_s: float) -> list[tuple[Sequence, Replica | None]]:
        """Who leaves now, and for where; nowhere where the deadline has passed."""
        ...


class MakeDispatcher(Protocol):
    """Begins one. `prefix_tokens` are those of a block of the sequences' prefixes, `ttft_s` the target for first
    tokens.
    """

    def __call__(self, setup: Setup, *, prefix_tokens: int, ttft_s: float, seed: int) -> Dispatcher: ...
