"""What does an engine keep of one router at the other end of a link?"""

from dataclasses import dataclass, field
from typing import TypeVar

from deployments.frames import Delta, Failure, Part, Spent


@dataclass(slots=True)
class RouterPeer:
    """What an engine keeps of one router."""

    heard_s: float
    received_frames: int = 0
    received_submits: int = 0
    sent_frames: int = 0
    spoke_s: float = 0.0
    full: bool = False
    """It does not read. Each try encodes all that waits for it, so tries are left to the tick."""
    deltas: dict[tuple[int, int, int], Delta] = field(default_factory=dict)
    parts: dict[tuple[int, int], Part] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    spent: list[Spent] = field(default_factory=list)

    def put(self, answer: Delta | Part | Failure | Spent) -> None:
        """Keeps an answer for the next frame, merged with what waits of the same choice or call."""
        if isinstance(answer, Failure):
            self.failures.append(answer)
        elif isinstance(answer, Spent):
            self.spent.append(answer)
        elif isinstance(answer, Part):
            _merge(self.parts, (answer.request, answer.attempt), answer)
        else:
            _merge(self.deltas, (answer.request, answer.attempt, answer.index), answer)

    def has_answers(self) -> bool:
        return bool(self.deltas or self.parts or self.failures or self.spent)

    def forget(self) -> None:
        """Keeps no answer."""
        self.deltas, self.parts, self.failures, self.spent = {}, {}, [], []


K = TypeVar("K")
A = TypeVar("A", Delta, Part)


def _merge(waiting: dict[K, A], key: K, answer: A) -> None:
    if (earlier := waiting.get(key)) is not None:
        earlier.merge(answer)
    else:
        waiting[key] = answer
