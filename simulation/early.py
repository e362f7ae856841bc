"""Where do requests wait when a router sends each at once to the replica that a chooser names? In the engines."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from simulation.choosers import BLOCK_TOKENS, Asked, Chooser, Seen
from simulation.decodes import Sequence
from simulation.replica import Replica
from simulation.setup import Setup


@dataclass(slots=True)
class _Sent:
    """What was sent to one replica."""

    inside: set[Sequence] = field(default_factory=set)
    """That have not ended."""
    tokens: int = 0
    held_blocks: int = 0
    """Of those inside, in the engine's blocks, but for those that `shared` counts."""
    shared: Counter[int] = field(default_factory=Counter)
    """How many of those inside begin with a block of the trace."""
    ever: set[int] = field(default_factory=set)
    """Blocks of the trace that were ever sent."""
    ever_tokens: int = 0

    def add(self, sequence: Sequence, prefix_tokens: int) -> None:
        before = known_blocks(sequence.prefix, self.ever) * prefix_tokens
        self.ever.update(sequence.prefix)
        self.ever_tokens += sequence.prompt_tokens - before
        self._count(sequence, 1, prefix_tokens)
        self.inside.add(sequence)

    def forget_ended(self, held: set[Sequence], prefix_tokens: int) -> None:
        if len(held) < len(self.inside):
            for sequence in [one for one in self.inside if one not in held]:
                self.inside.remove(sequence)
                self._count(sequence, -1, prefix_tokens)

    def _count(self, sequence: Sequence, count: int, prefix_tokens: int) -> None:
        self.tokens += count * sequence.prompt_tokens
        rest = sequence.prompt_tokens - len(sequence.prefix) * prefix_tokens
        self.held_blocks += count * -(-max(0, rest) // BLOCK_TOKENS)
        for block in sequence.prefix:
            self.shared[block] += count
            if not self.shared[block]:
                del self.shared[block]


class Early:
    """One router that holds nothing back."""

    def __init__(self, setup: Setup, *, prefix_tokens: int, ttft_s: float, seed: int, chooser: Chooser) -> None:
        self.tokens = 0
        self._setup, self._prefix_tokens, self._chooser = setup, prefix_tokens, chooser
        self._random = Random(seed)
        self._sent: dict[str, _Sent] = {}
        self._waiting: list[Sequence] = []
        self._asked = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, sequence: Sequence) -> bool:
        """Everybody is let in."""
        self.again([sequence])
        return True

    def again(self, sequences: Iterable[Sequence]) -> None:
        """They wait only while there is no replica at all."""
        for sequence in sequences:
            self._waiting.append(sequence)
            self.tokens += sequence.prompt_tokens

    def dispatch(self, replicas: list[Replica], now_s: float) -> list[tuple[Sequence, Replica | None]]:
        """All that came."""
        if not replicas:
            return []
        for replica in replicas:
            self._sent.setdefault(replica.id, _Sent()).forget_ended(replica.held, self._prefix_tokens)
        leaving: list[tuple[Sequence, Replica | None]] = []
        for sequence in self._waiting:
            seen = [self._look(replica, sequence) for replica in replicas]
            place = self._chooser(Asked(prompt_tokens=sequence.prompt_tokens, number=self._asked), seen, self._random)
            self._asked += 1
            self._sent[replicas[place].id].add(sequence, self._prefix_tokens)
            sequence.read_tokens = sequence.prompt_tokens - seen[place].cached_tokens
            leaving.append((sequence, replicas[place]))
        self._waiting, self.tokens = [], 0
        return leaving

    def _look(self, replica: Replica, sequence: Sequence) -> Seen:
        sent, engine, prefix = self._sent[replica.id], replica.engine, sequence.prefix
        most, each = sequence.prompt_tokens - 1, self._prefix_tokens
        blocks = -(-sequence.prompt_tokens // BLOCK_TOKENS)
        return Seen(
            requests=len(sent.inside),
            waiting=engine.schedule.waiting,
            tokens=sent.tokens,
            unread_tokens=engine.schedule.waiting_tokens,
            held_blocks=sent.held_blocks + len(sent.shared) * each // BLOCK_TOKENS,
            kv_share=1 - engine.blocks.free / self._setup.kv_blocks,
            sent_tokens=sent.ever_tokens,
            cached_tokens=min(most, engine.blocks.cached_tokens(prefix)),
            sent_before_tokens=min(most, known_blocks(prefix, sent.ever) * each),
            new_blocks=blocks - known_blocks(prefix, sent.shared) * each // BLOCK_TOKENS,
        )


def known_blocks(prefix: tuple[int, ...], blocks: set[int] | Counter[int]) -> int:
    """How many of a prompt's first blocks are among those."""
    count = 0
    for block in prefix:
        if block not in blocks:
            break
        count += 1
    return count
