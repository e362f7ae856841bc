"""What does one engine replica do with its requests, on a virtual clock: when are its steps, and how long are they?"""

from math import inf
from typing import NamedTuple, Protocol

from cluster.engine_memory import EngineSettings
from cluster.service import StepSeconds
from cluster.step_work import Chunk
from simulation.blocks import Blocks
from simulation.decodes import Sequence
from simulation.jumps import begun_before, total_s
from simulation.prefix_cache import PrefixCache
from simulation.schedule import Schedule


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
        self.now_s = 0.0
        """When the next step begins."""
        self.blocks = Blocks(kv_blocks, settings.block_tokens, prefixes)
        self.schedule = Schedule(settings, self.blocks, plans_ahead=plans_ahead)
        self.log = log
        self.version = 0
        """Grows with all that changes it."""
        self._step = step
        self._plans_ahead = plans_ahead
        self._jumps = jumps
        self._timer = timer
        self._alike: tuple[float, float, int] | None = None  # steps that began and are not taken yet
        self._quiet_s = 0.0  # until then nothing ends
        self._begun_s = 0.0

    @property
    def planned_s(self) -> float:
        """When the next step is planned: what arrives later is not in it. Infinite while there is nothing to do."""
        if self.schedule.idle:
            return inf
        return self._begun_s if self._plans_ahead else self.now_s

    @property
    def changes_s(self) -> float:
        """When the steps that have begun end. Infinite while there is nothing to do."""
        if self._alike is not None:
            first_s, growth_s, steps = self._alike
            return self.now_s + total_s(steps, first_s, growth_s)
        return inf if self.schedule.idle else self.now_s

    def made_tokens(self, until_s: float) -> int:
        """Of all answers, in steps that have ended by then."""
        made = self.schedule.made_tokens
        if self._alike is None:
            return made
        first_s, growth_s, steps = self._alike
        begun = begun_before(until_s - self.now_s, first_s, growth_s, most=steps)
        return made + self.schedule.decodes.count * max(0, begun - 1)

    def fail(self, at_s: float) -> tuple[list[Sequence], list[Sequence]]:
        """It ends in the middle: who was whole before, and who was not, with the tokens they had."""
        done = self.advance(at_s)
        self._alike = None
        return done, self.schedule.drop()

    def add(self, sequence: Sequence, now_s: float | None = None) -> None:
        """A request comes here, not before those added so far, when it arrives unless told otherwise. Raises ValueError
        where it could never run to its end.
        """
        was_idle = self.schedule.idle
        self.schedule.add(sequence)
        if was_idle:
            self.now_s = self._begun_s = max(self.now_s, sequence.arrival_s if now_s is None else now_s)
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
        steps = self.schedule.alike_steps() if self._jumps else 1
        if steps == 1:
            return first_s, 0.0, 1
        last = self._decode(context_tokens=chunks[0].context_tokens + steps - 1)
        return first_s, (self._seconds([last]) - first_s) / (steps - 1), steps

    def begin(self) -> list[Chunk]:
        """Plans the next step: who takes part, with how many tokens. Something must be there to do; `end` follows."""
        self.schedule.plan(self.now_s)
        decodes, prompts = self.schedule.decodes, self.schedule.chunks
        chunks = [self._decode(context_tokens=decodes.context_tokens / decodes.count)] if decodes.count else []
        if prompts:
            chunks += [Chunk(new_tokens=new, context_tokens=sequence.cached_tokens) for sequence, new in prompts]
        return chunks

    def end(self, seconds: float, *, steps: int = 1, last_s: float | None = None) -> list[Sequence]:
        """The step that `begin` planned, and `steps` - 1 more like it, took `seconds` in all, the last one `last_s`.

        Says whose answers became whole.
        """
        if self.log is not None:
            self.log.append(self._record(seconds, steps))
        if self._timer is not None:
            prompts = self.schedule.chunks
            tokens = sum([tokens for _, tokens in prompts]) if prompts else 0
            sequences = self.schedule.decodes.count + len(prompts)
            self._timer.add(seconds, sequences=sequences, prompt_tokens=tokens, steps=steps)
        self.version += 1
        self._begun_s = self.now_s + (0.0 if last_s is None else seconds - last_s)
        self.now_s += seconds
        return self.schedule.done(self.now_s, steps)

    def _seconds(self, chunks: list[Chunk]) -> float:
        seconds = self._step(chunks)
        if not 0 < seconds < inf:
            raise ValueError(f"step must say a number of seconds above 0, got {seconds} for {chunks}")
        return seconds

    def _decode(self, *, context_tokens: float) -> Chunk:
        return Chunk(new_tokens=1, context_tokens=context_tokens, count=self.schedule.decodes.count)

    def _record(self, seconds: float, steps: int) -> StepRecord:
        schedule = self.schedule
        return StepRecord(
            begun_s=self.now_s,
            seconds=seconds,
            steps=steps,
            decodes=schedule.decodes.count,
            context_tokens=schedule.decodes.context_tokens,
            prompt_tokens=sum(tokens for _, tokens in schedule.chunks),
            running=schedule.running,
            waiting=schedule.waiting,
            free_blocks=self.blocks.free,
        )
