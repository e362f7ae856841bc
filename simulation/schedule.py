"""Who takes part in an engine's next step, and whose answers become whole by it?

As vLLM's scheduler does (vllm/v1/core/sched/scheduler.py, 0.19 to 0.29, chunked prefill): decodes first, then prompts'
chunks in order of arrival, within the tokens and sequences of a step and the blocks of the cache.
"""

from collections import deque
from math import inf

from cluster.engine_memory import EngineSettings
from simulation.blocks import Blocks
from simulation.decodes import Decodes, Sequence


class Schedule:
    """The sequences of one engine: who waits, who runs, who leaves. A step is planned, then done."""

    def __init__(self, settings: EngineSettings, blocks: Blocks, *, plans_ahead: bool) -> None:
        """`plans_ahead`: a step is planned when the one before begins. Raises ValueError where a step has less room for
        tokens than for sequences.
        """
        if settings.batched_tokens < settings.max_sequences:
            raise ValueError(
                f"batched_tokens must be at least max_sequences {settings.max_sequences}, got {settings.batched_tokens}"
            )
        self.decodes = Decodes(settings.block_tokens)
        self.chunks: list[tuple[Sequence, int]] = []
        """Of the planned step's prompts, with their new tokens."""
        self.waiting_tokens = 0
        """Of prompts that have no token yet, what their senders think must be read."""
        self.read_tokens = self.found_tokens = 0
        """Of prompts that ran: computed, and found in the cache."""
        self.made_tokens = 0
        """Of answers."""
        self._settings, self._blocks, self._plans_ahead = settings, blocks, plans_ahead
        self._waiting: deque[Sequence] = deque()
        self._running: dict[Sequence, None] = {}  # as they came in: the last is preempted first
        self._leaving: list[Sequence] = []  # whole, but their places are taken until a step is planned without them
        self._unread: Sequence | None = None  # running, its prompt not whole yet: always the last that came in
        self._is_single = False  # no step after the planned one is like it

    @property
    def running(self) -> int:
        """Sequences that hold a place in the batch."""
        return len(self._running) + len(self._leaving)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """There is nothing to do."""
        return not (self._running or self._waiting)

    def add(self, sequence: Sequence) -> None:
        """It waits behind all others. Raises ValueError where it could never run to its end."""
        prompt, answer = sequence.prompt_tokens, sequence.output_tokens
        if min(prompt, answer) < 1:
            raise ValueError(f"prompt_tokens and output_tokens must be at least 1, got {prompt} and {answer}")
        # The last token of an answer is never cached.
        room = min(self._settings.context_tokens, self._blocks.count * self._settings.block_tokens + 1)
        if prompt + answer > room:
            raise ValueError(f"prompt_tokens and output_tokens must be at most {room} together, got {prompt + answer}")
        self._waiting.append(sequence)
        sequence.read_tokens = sequence.read_tokens or prompt
        self.waiting_tokens += sequence.read_tokens

    def drop(self) -> list[Sequence]:
        """All that are not whole, with the tokens they had: nothing is left to do."""
        left = [*self._running, *self._waiting]
        for sequence in self._running:
            if sequence is not self._unread and sequence.last_step >= 0:
                self.decodes.leave(sequence)
        self._running.clear()
        self._waiting.clear()
        self._unread, self.chunks = None, []
        return left

    def plan(self, now_s: float) -> None:
        """Plans the next step. Something must be there to do; `done` follows."""
        if self._leaving and not (self._plans_ahead and self._lacks()):
            self._release()
        self._is_single = bool(self._leaving)
        self._plan(now_s)
        if not self.decodes.count and not self.chunks:
            # All that is left waits for the blocks or places of those that leave.
            self._release()
            self._plan(now_s)
        if self._leaving:
            self._release()

    def alike_steps(self) -> int:
        """How many steps from the planned one on differ in nothing but their contexts."""
        if self.chunks or self._is_single:
            return 1
        steps = self.decodes.next_end - self.decodes.steps
        return 1 + self.decodes.affordable(steps - 1, self._blocks.free)

    def done(self, now_s: float, steps: int) -> list[Sequence]:
        """The planned step, and `steps` - 1 more like it, have ended now; those whose answers became whole."""
        self.made_tokens += self.decodes.count * steps
        if steps > 1:
            self._blocks.take(self.decodes.blocks_due(1, steps - 1))
        whole = self.decodes.take(steps)
        if self.chunks:
            whole += [sequence for sequence, tokens in self.chunks if self._read(sequence, tokens, now_s)]
            self.chunks = []
        for sequence in whole:
            sequence.last_token_s = now_s
            del self._running[sequence]
        self._leaving += whole
        if whole and self.idle:
            self._release()
        return whole

    def _lacks(self) -> bool:
        """Whether somebody waits for places or blocks."""
        return bool(self._waiting or self._unread) or self.decodes.blocks_due(0) > self._blocks.free

    def _plan(self, now_s: float) -> None:
        preempted = False
        while (due := self.decodes.blocks_due(0)) > self._blocks.free:
            self._preempt()
            preempted = True
        self._blocks.take(due)
        if self._unread is None and not self._waiting and not preempted:
            return
        budget = self._settings.batched_tokens - self.decodes.count
        if (unread := self._unread) is not None and budget:
            tokens = self._schedule(unread, budget)
            budget -= tokens
            preempted |= not tokens
        while self._waiting and budget and not preempted and self.running < self._settings.max_sequences:
            sequence = self._waiting[0]
            if self._blocks.of(sequence.known_tokens) - self._blocks.lent(sequence) > self._blocks.free:
                break
            self._running[self._waiting.popleft()] = None
            sequence.scheduled_s = min(sequence.scheduled_s, now_s)
            sequence.cached_tokens = (
                self._blocks.kept_tokens(sequence) if sequence.preemptions else self._found(sequence)
            )
            budget -= self._schedule(sequence, budget)
        self._is_single |= preempted

    def _schedule(self, sequence: Sequence, budget: int) -> int:
        """Tokens of the sequence's next chunk; none where there are too few blocks: then it waits again itself."""
        left = sequence.known_tokens - sequence.cached_tokens
        tokens = min(budget, left)
        blocks = self._blocks.of(sequence.cached_tokens + tokens) - sequence.blocks
        if blocks > self._blocks.free:
            self._preempt()
            return 0
        self._blocks.take(blocks)
        sequence.blocks += blocks
        self._unread = sequence if tokens < left else None
        self.chunks.append((sequence, tokens))
        return tokens

    def _preempt(self) -> None:
        """The last that came in gives up its blocks and waits, before all others."""
        sequence, _ = self._running.popitem()
        if sequence is self._unread:
            self._unread = None
        else:
            self.decodes.leave(sequence)
            sequence.cached_tokens = sequence.known_tokens - 1
        self._blocks.give_up(sequence)
        sequence.preemptions += 1
        self._waiting.appendleft(sequence)

    def _found(self, sequence: Sequence) -> int:
        """Of its prompt's beginning in the cache."""
        tokens = sequence.found_tokens = self._blocks.find(sequence)
        self.found_tokens += tokens
        self.read_tokens += sequence.prompt_tokens - tokens
        return tokens

    def _read(self, sequence: Sequence, tokens: int, now_s: float) -> bool:
        """A chunk is done; with the last one comes a token. Whether the answer is whole by it."""
        sequence.cached_tokens += tokens
        if sequence is self._unread:
            return False
        context = sequence.known_tokens
        if sequence.first_token_s == inf:
            self.waiting_tokens -= sequence.read_tokens
            self._blocks.share(sequence)
        sequence.made_tokens += 1
        self.made_tokens += 1
        sequence.first_token_s = min(sequence.first_token_s, now_s)
        if sequence.made_tokens == sequence.output_tokens:
            return True
        self.decodes.join(sequence, context_tokens=context)
        return False

    def _release(self) -> None:
        for sequence in self._leaving:
            self._blocks.release(sequence)
        self._leaving = []
