"""Which sequences get one token in each step, and when is the next one whole?"""

from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf

NEVER = -1


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """One request in an engine, and when things happened to it."""

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    prefix: tuple[int, ...] = ()
    """Keys of its prompt's blocks."""
    number: int = 0
    """Of the request, for whoever sent it."""
    read_tokens: int = 0
    """Of its prompt, what its sender thinks must be read, as the cache has the rest; 0: all of it."""
    found_tokens: int = 0
    """Of its prompt, what the cache had when it was scheduled first."""
    scheduled_s: float = inf
    """When it first took part in a step."""
    first_token_s: float = inf
    last_token_s: float = inf
    preemptions: int = 0
    made_tokens: int = 0
    """Of its answer; brought up to date when it stops decoding."""
    cached_tokens: int = field(default=0, repr=False)
    """While its prompt is read, or when it was preempted: what the cache holds of it."""
    blocks: int = field(default=0, repr=False)
    """Held in the cache; brought up to date when it stops decoding."""
    held: int = field(default=0, repr=False)
    """Blocks of its prefix that it shares with whoever begins alike."""
    safe_blocks: int = field(default=0, repr=False)
    """Once preempted: its blocks are whole until the engine has taken so many, ever."""
    base: int = field(default=0, repr=False)
    """While it decodes: its context minus the engine's count of steps, as both grow by one a step."""
    last_step: int = field(default=NEVER, repr=False)
    """While it decodes: the engine's count of steps when its answer is whole."""

    @property
    def known_tokens(self) -> int:
        """Of prompt and answer: what must be in the cache before the next token."""
        return self.prompt_tokens + self.made_tokens


class Decodes:
    """The sequences that get one token in each step, without a look at each of them."""

    def __init__(self, block_tokens: int) -> None:
        self.count = 0
        self.steps = 0
        """That the engine has taken."""
        self._bases = 0
        self._block = block_tokens
        self._due = [0] * block_tokens  # sequences by the step, modulo a block, at which they need a new one
        self._ends: list[tuple[int, int, Sequence]] = []
        self._joined = 0

    @property
    def context_tokens(self) -> int:
        """In the cache, of all of them together."""
        return self._bases + self.count * self.steps

    @property
    def next_end(self) -> int:
        """The count of steps at which the next answer is whole."""
        while self._ends[0][2].last_step != self._ends[0][0]:
            heappop(self._ends)  # preempted since
        return self._ends[0][0]

    def join(self, sequence: Sequence, *, context_tokens: int) -> None:
        sequence.base = context_tokens - self.steps
        sequence.last_step = self.steps + sequence.output_tokens - sequence.made_tokens
        self._joined += 1
        heappush(self._ends, (sequence.last_step, self._joined, sequence))
        self._add(sequence, 1)

    def leave(self, sequence: Sequence) -> None:
        sequence.made_tokens = sequence.output_tokens - (sequence.last_step - self.steps)
        sequence.blocks = -(-(sequence.base + self.steps) // self._block)
        sequence.last_step = NEVER
        self._add(sequence, -1)

    def blocks_due(self, first: int, steps: int = 1) -> int:
        """New blocks for so many steps, the first of them `first` steps from now."""
        if not self.count or not steps:
            return 0
        due, block = self._due, self._block
        begin = (self.steps + first) % block
        if steps == 1:
            return due[begin]
        rounds, rest = divmod(steps, block)
        over = max(0, begin + rest - block)
        return rounds * self.count + sum(due[begin : begin + rest]) + sum(due[:over])

    def affordable(self, steps: int, free_blocks: int) -> int:
        """How many of so many steps, from the next one on, find their new blocks."""
        if self.count * (steps // self._block + 1) <= free_blocks:
            return steps
        rounds, left = divmod(free_blocks, self.count)
        afforded = rounds * self._block
        while afforded < steps and (left := left - self.blocks_due(1 + afforded)) >= 0:
            afforded += 1
        return min(afforded, steps)

    def take(self, steps: int) -> list[Sequence]:
        """So many steps pass, no more than up to the next end; the sequences that end."""
        self.steps += steps
        ended = []
        while self._ends and self._ends[0][0] <= self.steps:
            last_step, _, sequence = heappop(self._ends)
            if sequence.last_step == last_step:
                self.leave(sequence)
                ended.append(sequence)
        return ended

    def _add(self, sequence: Sequence, count: int) -> None:
        self.count += count
        self._bases += count * sequence.base
        self._due[-sequence.base % self._block] += count
