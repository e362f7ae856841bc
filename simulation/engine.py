"""What does one engine replica do with its requests, step by step, on a virtual clock?

As vLLM's scheduler does (vllm/v1/core/sched/scheduler.py, 0.19 to 0.29, chunked prefill): decodes first, then prompts'
chunks in order of arrival, within the tokens and sequences of a step and the blocks of the cache.
"""

from collections import deque
from math import inf
from typing import NamedTuple, Protocol

from cluster.engine_memory import EngineSettings
from cluster.service import StepSeconds
from cluster.step_work import Chunk
from simulation.decodes import Decodes, Sequence
from simulation.jumps import begun_before, total_s
from simulation.prefix_cache import PrefixCache


class StepRecord(NamedTuple):
    """One step, or several that differed in nothing but their contexts."""

    begun_s: float
    seconds: float
    """Of all of them."""
    steps: int
    decodes: int
    context_tokens: int
    """Of all decodes together, before the first of the steps."""
    prompt_tokens: int
    running: int
    waiting: int
    free_blocks: int


class Timer(Protocol):
    """Who wants to know what steps take: autoscaling's StepFit."""

    def add(self, seconds: float, *, sequences: float, prompt_tokens: float, steps: int) -> None:
        """So many like steps took `seconds` in all; the others are one step's."""
        ...


class Engine:
    """One replica in virtual time: `add` what arrives, `advance` to the next moment at which something may arrive.

    Steps without prompts are jumped over together, up to the next finished answer, shortage of blocks, or `until_s`:
    their seconds are taken to grow evenly from the first to the last, as a roofline's do.
    """

    def __init__(
        self,
        settings: EngineSettings,
        *,
        kv_blocks: int,
        step: StepSeconds,
        plans_ahead: bool = True,
        jumps: bool = True,
        log: list[StepRecord] | None = None,
        timer: Timer | None = None,
        prefixes: PrefixCache | None = None,
    ) -> None:
        """Raises ValueError where a step has less room for tokens than for sequences, the cache has no block, or one of
        `prefixes` is not so many whole blocks.

        `plans_ahead` is vLLM's async scheduling, its default: a step is planned when the one before begins, so that
        it knows neither what arrives nor what ends during that one. `jumps` False takes every step by itself.
        `timer` hears of each step, `prefixes` are what prompts' beginnings are found in.
        """
        if settings.batched_tokens < settings.max_sequences:
            raise ValueError(
                f"batched_tokens must be at least max_sequences {settings.max_sequences}, got {settings.batched_tokens}"
            )
        if kv_blocks < 1:
            raise ValueError(f"kv_blocks must be at least 1, got {kv_blocks}")
        if prefixes is not None and prefixes.block_tokens % settings.block_tokens:
            whole = f"{settings.block_tokens}-token blocks"
            raise ValueError(f"a block of prefixes must be whole {whole}, got {prefixes.block_tokens} tokens")
        self.now_s = 0.0
        """When the next step begins."""
        self.free_blocks = kv_blocks
        self.log = log
        self.version = 0
        """Grows with all that changes it."""
        self.waiting_tokens = 0
        """Of prompts that have no token yet, what their senders think must be read."""
        self.read_tokens = self.found_tokens = 0
        """Of prompts that ran: computed, and found in the cache."""
        self._made_tokens = 0
        self._settings = settings
        self._kv_blocks = kv_blocks
        self._step = step
        self._plans_ahead = plans_ahead
        self._jumps = jumps
        self._timer = timer
        self._prefixes = prefixes
        self._alike: tuple[float, float, int] | None = None  # steps that began and are not taken yet
        self._quiet_s = 0.0  # until then nothing ends
        self._begun_s = 0.0
        self._taken_blocks = 0  # since it began
        self._waiting: deque[Sequence] = deque()
        self._running: dict[Sequence, None] = {}  # as they came in: the last is preempted first
        self._leaving: list[Sequence] = []  # whole, but their places are taken until a step is planned without them
        self._unread: Sequence | None = None  # running, its prompt not whole yet: always the last that came in
        self._chunks: list[tuple[Sequence, int]] = []  # of the planned step's prompts, with their new tokens
        self._decodes = Decodes(settings.block_tokens)
        self._is_single = False

    @property
    def running(self) -> int:
        """Sequences that hold a place in the batch."""
        return len(self._running) + len(self._leaving)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def cached_tokens(self, prefix: tuple[int, ...]) -> int:
        """Of a prompt that begins so, what the cache has now."""
        return 0 if self._prefixes is None else self._prefixes.found(prefix) * self._prefixes.block_tokens

    @property
    def planned_s(self) -> float:
        """When the next step is planned: what arrives later is not in it. Infinite while there is nothing to do."""
        if self._running or self._waiting:
            return self._begun_s if self._plans_ahead else self.now_s
        return inf

    @property
    def changes_s(self) -> float:
        """When the steps that have begun end. Infinite while there is nothing to do."""
        if self._alike is not None:
            first_s, growth_s, steps = self._alike
            return self.now_s + total_s(steps, first_s, growth_s)
        return self.now_s if self._running or self._waiting else inf

    def made_tokens(self, until_s: float) -> int:
        """Of all answers, in steps that have ended by then."""
        if self._alike is None:
            return self._made_tokens
        first_s, growth_s, steps = self._alike
        begun = begun_before(until_s - self.now_s, first_s, growth_s, most=steps)
        return self._made_tokens + self._decodes.count * max(0, begun - 1)

    def fail(self, at_s: float) -> tuple[list[Sequence], list[Sequence]]:
        """It ends in the middle: who was whole before, and who was not, with the tokens they had."""
        done = self.advance(at_s)
        left = [*self._running, *self._waiting]
        for sequence in self._running:
            if sequence is not self._unread and sequence.last_step >= 0:
                self._decodes.leave(sequence)
        self._running.clear()
        self._waiting.clear()
        self._alike, self._unread, self._chunks = None, None, []
        return done, left

    def add(self, sequence: Sequence, now_s: float | None = None) -> None:
        """A request comes here, not before those added so far, when it arrives unless told otherwise. Raises ValueError
        where it could never run to its end.
        """
        prompt, answer = sequence.prompt_tokens, sequence.output_tokens
        if min(prompt, answer) < 1:
            raise ValueError(f"prompt_tokens and output_tokens must be at least 1, got {prompt} and {answer}")
        # The last token of an answer is never cached.
        room = min(self._settings.context_tokens, self._kv_blocks * self._settings.block_tokens + 1)
        if prompt + answer > room:
            raise ValueError(f"prompt_tokens and output_tokens must be at most {room} together, got {prompt + answer}")
        if self.planned_s == inf:
            self.now_s = self._begun_s = max(self.now_s, sequence.arrival_s if now_s is None else now_s)
        self._waiting.append(sequence)
        sequence.read_tokens = sequence.read_tokens or prompt
        self.waiting_tokens += sequence.read_tokens
        self.version += 1
        self._quiet_s = 0.0

    def advance(self, until_s: float = inf) -> list[Sequence]:
        """Takes every step that is planned before `until_s`; the sequences whose answers became whole in them."""
        return self._go(until_s, whole=False)

    def settle(self, until_s: float) -> list[Sequence]:
        """The same, but steps that differ in nothing but their contexts wait until all of them can be taken: nobody
        can tell, except by `now_s`, as long as nothing is added.
        """
        return self._go(until_s, whole=True) if until_s > self._quiet_s else []

    def _go(self, until_s: float, *, whole: bool) -> list[Sequence]:
        done: list[Sequence] = []
        while self._alike is not None or self.planned_s < until_s:
            if self._alike is None:
                self._alike = self._begin_alike()
            first_s, growth_s, steps = self._alike
            if steps == 1:
                self._alike = None
                done += self.end(first_s)
                continue
            begun = begun_before(until_s - self.now_s, first_s, growth_s, most=steps)
            taken = min(steps, begun + self._plans_ahead)
            if not taken or (whole and taken < steps):
                self._quiet_s = self.now_s + total_s(steps - 1 - self._plans_ahead, first_s, growth_s)
                return done
            self._alike = None
            last_s = first_s + growth_s * (taken - 1)
            done += self.end(total_s(taken, first_s, growth_s), steps=taken, last_s=last_s)
        self._quiet_s = 0.0 if self.planned_s < inf else inf
        return done

    def _begin_alike(self) -> tuple[float, float, int]:
        """Seconds of the first of some steps that differ in nothing but their contexts, by how much they grow, and
        how many there are.
        """
        chunks = self.begin()
        first_s = self._seconds(chunks)
        steps = self._alike_steps() if self._jumps else 1
        if steps == 1:
            return first_s, 0.0, 1
        last = self._decode(context_tokens=chunks[0].context_tokens + steps - 1)
        return first_s, (self._seconds([last]) - first_s) / (steps - 1), steps

    def begin(self) -> list[Chunk]:
        """Plans the next step: who takes part, with how many tokens. Something must be there to do; `end` follows."""
        if self._leaving and not (self._plans_ahead and self._lacks()):
            self._release()
        self._is_single = bool(self._leaving)
        self._plan()
        if not self._decodes.count and not self._chunks:
            # All that is left waits for the blocks or places of those that leave.
            self._release()
            self._plan()
        if self._leaving:
            self._release()
        count = self._decodes.count
        chunks = [self._decode(context_tokens=self._decodes.context_tokens / count)] if count else []
        if self._chunks:
            chunks += [Chunk(new_tokens=new, context_tokens=sequence.cached_tokens) for sequence, new in self._chunks]
        return chunks

    def end(self, seconds: float, *, steps: int = 1, last_s: float | None = None) -> list[Sequence]:
        """The step that `begin` planned, and `steps` - 1 more like it, took `seconds` in all, the last one `last_s`.

        Says whose answers became whole.
        """
        if self.log is not None:
            self.log.append(self._record(seconds, steps))
        if self._timer is not None:
            prompts = sum([tokens for _, tokens in self._chunks]) if self._chunks else 0
            sequences = self._decodes.count + len(self._chunks)
            self._timer.add(seconds, sequences=sequences, prompt_tokens=prompts, steps=steps)
        self.version += 1
        self._made_tokens += self._decodes.count * steps
        self._begun_s = self.now_s + (0.0 if last_s is None else seconds - last_s)
        self.now_s += seconds
        if steps > 1:
            self._take(self._decodes.blocks_due(1, steps - 1))
        done = self._decodes.take(steps)
        if self._chunks:
            done += [sequence for sequence, tokens in self._chunks if self._read(sequence, tokens)]
            self._chunks = []
        for sequence in done:
            sequence.last_token_s = self.now_s
            del self._running[sequence]
        self._leaving += done
        if done and self.planned_s == inf:
            self._release()
        return done

    def _lacks(self) -> bool:
        """Whether somebody waits for places or blocks."""
        return bool(self._waiting or self._unread) or self._decodes.blocks_due(0) > self.free_blocks

    def _plan(self) -> None:
        preempted = False
        while (due := self._decodes.blocks_due(0)) > self.free_blocks:
            self._preempt()
            preempted = True
        self._take(due)
        if self._unread is None and not self._waiting and not preempted:
            return
        budget = self._settings.batched_tokens - self._decodes.count
        if (unread := self._unread) is not None and budget:
            tokens = self._schedule(unread, budget)
            budget -= tokens
            preempted |= not tokens
        while self._waiting and budget and not preempted and self.running < self._settings.max_sequences:
            sequence = self._waiting[0]
            if self._blocks(sequence.known_tokens) - self._lent(sequence) > self.free_blocks:
                break
            self._running[self._waiting.popleft()] = None
            sequence.scheduled_s = min(sequence.scheduled_s, self.now_s)
            sequence.cached_tokens = self._kept_tokens(sequence) if sequence.preemptions else self._found(sequence)
            budget -= self._schedule(sequence, budget)
        self._is_single |= preempted

    def _schedule(self, sequence: Sequence, budget: int) -> int:
        """Tokens of the sequence's next chunk; none where there are too few blocks: then it waits again itself."""
        left = sequence.known_tokens - sequence.cached_tokens
        tokens = min(budget, left)
        blocks = self._blocks(sequence.cached_tokens + tokens) - sequence.blocks
        if blocks > self.free_blocks:
            self._preempt()
            return 0
        self._take(blocks)
        sequence.blocks += blocks
        self._unread = sequence if tokens < left else None
        self._chunks.append((sequence, tokens))
        return tokens

    def _preempt(self) -> None:
        """The last that came in gives up its blocks and waits, before all others.

        What it must compute anew is what its blocks were overwritten with: those that have been free for longest go
        first, and of its own the last (vllm/v1/core/block_pool.py; prefix caching is vLLM's default).
        """
        sequence, _ = self._running.popitem()
        if sequence is self._unread:
            self._unread = None
        else:
            self._decodes.leave(sequence)
            sequence.cached_tokens = sequence.known_tokens - 1
        sequence.safe_blocks = self._taken_blocks + self.free_blocks
        self._free(sequence)
        sequence.preemptions += 1
        self._waiting.appendleft(sequence)

    def _found(self, sequence: Sequence) -> int:
        """Of its prompt's beginning in the cache, which it holds from now on."""
        tokens, cache = 0, self._prefixes
        if cache is not None and sequence.prefix:
            sequence.held = cache.found(sequence.prefix[: self._most_found(sequence)])
            tokens = sequence.held * cache.block_tokens
            sequence.blocks = self._blocks(tokens)
            self._take(self._blocks(cache.hold(sequence.prefix[: sequence.held]) * cache.block_tokens))
        sequence.found_tokens = tokens
        self.found_tokens += tokens
        self.read_tokens += sequence.prompt_tokens - tokens
        return tokens

    def _kept_tokens(self, sequence: Sequence) -> int:
        """Of those that it had in the cache: whole blocks, and not all of them, as its next token must be computed."""
        blocks = self._blocks(sequence.cached_tokens) - max(0, self._taken_blocks - sequence.safe_blocks)
        tokens = min(sequence.cached_tokens, sequence.known_tokens - 1, blocks * self._settings.block_tokens)
        return max(0, tokens // self._settings.block_tokens * self._settings.block_tokens)

    def _read(self, sequence: Sequence, tokens: int) -> bool:
        """A chunk is done; with the last one comes a token. Whether the answer is whole by it."""
        sequence.cached_tokens += tokens
        if sequence is self._unread:
            return False
        context = sequence.known_tokens
        if sequence.first_token_s == inf:
            self.waiting_tokens -= sequence.read_tokens
            self._share(sequence)
        sequence.made_tokens += 1
        self._made_tokens += 1
        sequence.first_token_s = min(sequence.first_token_s, self.now_s)
        if sequence.made_tokens == sequence.output_tokens:
            return True
        self._decodes.join(sequence, context_tokens=context)
        return False

    def _alike_steps(self) -> int:
        """How many steps from the planned one on differ in nothing but their contexts."""
        if self._chunks or self._is_single:
            return 1
        steps = self._decodes.next_end - self._decodes.steps
        return 1 + self._decodes.affordable(steps - 1, self.free_blocks)

    def _seconds(self, chunks: list[Chunk]) -> float:
        seconds = self._step(chunks)
        if not 0 < seconds < inf:
            raise ValueError(f"step must say a number of seconds above 0, got {seconds} for {chunks}")
        return seconds

    def _decode(self, *, context_tokens: float) -> Chunk:
        return Chunk(new_tokens=1, context_tokens=context_tokens, count=self._decodes.count)

    def _record(self, seconds: float, steps: int) -> StepRecord:
        return StepRecord(
            begun_s=self.now_s,
            seconds=seconds,
            steps=steps,
            decodes=self._decodes.count,
            context_tokens=self._decodes.context_tokens,
            prompt_tokens=sum(tokens for _, tokens in self._chunks),
            running=self.running,
            waiting=self.waiting,
            free_blocks=self.free_blocks,
        )

    def _release(self) -> None:
        for sequence in self._leaving:
            self._free(sequence)
        self._leaving = []

    def _lent(self, sequence: Sequence) -> int:
        """Blocks that it need not take, as others hold them."""
        cache = self._prefixes
        if cache is None or not sequence.prefix or sequence.preemptions:
            return 0
        return self._blocks(cache.lent(sequence.prefix[: self._most_found(sequence)]) * cache.block_tokens)

    def _most_found(self, sequence: Sequence) -> int:
        """Blocks of its prefix that may be found: its last token is computed in any case."""
        return 0 if self._prefixes is None else (sequence.prompt_tokens - 1) // self._prefixes.block_tokens

    def _share(self, sequence: Sequence) -> None:
        """Its prompt was read: whoever begins alike finds it. Of what others have read meanwhile it holds theirs."""
        cache = self._prefixes
        if cache is not None and sequence.prefix:
            whole = sequence.prefix[: sequence.prompt_tokens // cache.block_tokens]
            more = whole[sequence.held :]
            self.free_blocks += self._blocks((len(more) - cache.hold(more)) * cache.block_tokens)
            sequence.held = len(whole)

    def _take(self, blocks: int) -> None:
        self.free_blocks -= blocks
        self._taken_blocks += blocks
        if self._prefixes is not None:
            self._prefixes.shrink(self.free_blocks * self._settings.block_tokens // self._prefixes.block_tokens)

    def _free(self, sequence: Sequence) -> None:
        self.free_blocks += sequence.blocks
        if self._prefixes is not None and sequence.held:
            cache, held = self._prefixes, sequence.held
            self.free_blocks -= self._blocks((held - cache.release(sequence.prefix[:held])) * cache.block_tokens)
        sequence.blocks = sequence.held = 0

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self._settings.block_tokens)
