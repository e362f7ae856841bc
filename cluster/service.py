"""What will users see of one replica at a given load? Continuous batching in its steady state."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, log, sqrt

from cluster.engine_memory import EngineSettings
from cluster.step_work import Chunk

StepSeconds = Callable[[Sequence[Chunk]], float]
"""How long a step over these chunks takes."""
BISECTIONS = 40
MINIMUM_RUNNING = 1e-9
TAIL = 0.05
"""What the 95th percentile leaves out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Requests:
    """What is asked of a model."""

    prompt_tokens: int
    """Of a prompt, in the mean; at least 1."""
    output_tokens: int
    """Of an answer, in the mean; at least 1."""

    @property
    def context_tokens(self) -> float:
        """Cached tokens of a running request, in the mean over its life."""
        return self.prompt_tokens + self.output_tokens / 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """One replica at one rate."""

    rate_per_s: float
    running: float
    """Sequences in a step, in the mean."""
    token_s: float
    """From one token of an answer to the next."""
    ttft_s: float
    """From arrival to the first token, in the mean."""
    ttft_p95_s: float
    output_tokens_per_s: float


def service(
    requests: Requests, rate_per_s: float, *, slots: int, settings: EngineSettings, step: StepSeconds
) -> Service:
    """One replica that gets requests at random times (Poisson). Times are infinite at and above `capacity_per_s`.

    Running sequences follow from Little's law: rate * answer * seconds a token. The wait has three parts: half a
    step; prompts before this one (M/D/1: rho * s / (2 (1 - rho))); a free slot (Sakasegawa 1977, doi
    10.1007/BF02480265, for c servers). Its 95th percentile takes an exponential tail (Kingman's heavy-traffic law).
    """
    running = _running(requests, rate_per_s, slots=slots, settings=settings, step=step)
    if running is None:
        return Service(
            rate_per_s=rate_per_s, running=slots, token_s=inf, ttft_s=inf, ttft_p95_s=inf, output_tokens_per_s=0.0
        )
    token_s = mixed_step_s(requests, running, settings=settings, step=step)
    own_s, engine_s = _prefill_s(requests, running, settings=settings, step=step)
    waits = _wait_for_prompts(rate_per_s, engine_s), _wait_for_slots(rate_per_s, requests, token_s, slots)
    free_s = token_s / 2 + own_s if rate_per_s else own_s
    return Service(
        rate_per_s=rate_per_s,
        running=running,
        token_s=token_s,
        ttft_s=free_s + sum(mean_s for mean_s, _ in waits),
        ttft_p95_s=free_s + sum(_tail_s(mean_s, share) for mean_s, share in waits),
        output_tokens_per_s=rate_per_s * requests.output_tokens,
    )


def capacity_per_s(requests: Requests, *, slots: int, settings: EngineSettings, step: StepSeconds) -> float:
    """Requests per second that one replica can finish, with every slot taken."""
    if slots < 1:
        return 0.0
    return slots / (requests.output_tokens * mixed_step_s(requests, slots, settings=settings, step=step))


def usable_slots(requests: Requests, *, slots: int, settings: EngineSettings) -> int:
    """Sequences that can run for long: each step must also read as many prompt tokens as its answers make room for,
    so running * (1 + prompt / answer) <= tokens of a step.
    """
    share = requests.output_tokens / (requests.prompt_tokens + requests.output_tokens)
    return min(slots, settings.max_sequences, max(1, int(settings.batched_tokens * share)))


def mixed_step_s(requests: Requests, running: float, *, settings: EngineSettings, step: StepSeconds) -> float:
    """Seconds of a step in the mean, while `running` answers grow and as many prompts are read as answers end.

    Prompts come whole, as far as a step has room: some steps have one and others none. Who looks at a step is in it:
    it never has less than one sequence.
    """
    decode = Chunk(new_tokens=1, context_tokens=requests.context_tokens, count=max(1.0, running))
    prompt_tokens = running * requests.prompt_tokens / requests.output_tokens
    room = max(1.0, settings.batched_tokens - running)
    chunk_tokens = max(prompt_tokens, min(requests.prompt_tokens, room))
    chunk = Chunk(new_tokens=chunk_tokens, context_tokens=max(0.0, requests.prompt_tokens - chunk_tokens) / 2)
    alone_s = step([decode])
    return alone_s + prompt_tokens / chunk_tokens * (step([decode, chunk]) - alone_s)


def prompt_chunks(prompt_tokens: int, room_tokens: int) -> list[Chunk]:
    """The steps in which a prompt is read."""
    return [
        Chunk(new_tokens=min(room_tokens, prompt_tokens - read), context_tokens=read)
        for read in range(0, prompt_tokens, room_tokens)
    ]


def _running(
    requests: Requests, rate_per_s: float, *, slots: int, settings: EngineSettings, step: StepSeconds
) -> float | None:
    """Where rate * answer * step(running) = running, by bisection; None where no number of slots keeps up."""

    def kept_up(running: float) -> bool:
        demanded = rate_per_s * requests.output_tokens
        return demanded * mixed_step_s(requests, running, settings=settings, step=step) <= running

    if slots < 1 or not kept_up(slots):
        return None
    low, high = 0.0, float(slots)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if kept_up(middle) else (middle, high)
    return max(high, MINIMUM_RUNNING)


def _prefill_s(
    requests: Requests, running: float, *, settings: EngineSettings, step: StepSeconds
) -> tuple[float, float]:
    """Seconds from a prompt's first chunk to its first token, and how many of them the engine gave to it alone."""
    decode = Chunk(new_tokens=1, context_tokens=requests.context_tokens, count=max(1.0, running))
    room = max(1, int(settings.batched_tokens - running))
    chunks = prompt_chunks(requests.prompt_tokens, room)
    beside = [decode] if running >= 1 else []
    own_s = sum(step([*beside, chunk]) for chunk in chunks)
    # Beyond a plain step, whether answers run or not: else prompts would wait less as soon as one does.
    return own_s, max(0.0, own_s - len(chunks) * step([decode]))


def _wait_for_prompts(rate_per_s: float, prefill_s: float) -> tuple[float, float]:
    """Mean seconds behind other prompts, and the share of requests that wait at all."""
    busy = rate_per_s * prefill_s
    return (inf, 1.0) if busy >= 1 else (busy * prefill_s / (2 * (1 - busy)), busy)


def _wait_for_slots(rate_per_s: float, requests: Requests, token_s: float, slots: int) -> tuple[float, float]:
    """Mean seconds until a slot is free, and the share of requests that wait for one."""
    life_s = requests.output_tokens * token_s
    busy = rate_per_s * life_s / slots
    if busy >= 1:
        return inf, 1.0
    share = busy ** (sqrt(2 * (slots + 1)) - 1)
    return share * life_s / (slots * (1 - busy)), share


def _tail_s(mean_s: float, share: float) -> float:
    """The wait that TAIL of all requests exceed, when `share` of them wait, and all of them `mean_s` in the mean."""
    return 0.0 if share <= TAIL else mean_s / share * log(share / TAIL)
