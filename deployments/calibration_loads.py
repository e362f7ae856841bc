"""Which loads tell an engine's coefficients apart, and which of their tokens' times say how long a step took?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, log2
from statistics import fmean

from cluster.step_work import Chunk
from deployments.engine_process import EngineFacts
from deployments.timed_engine import Request

PROMPTS_TOKENS = (16, 64, 192, 512, 1024, 2048)
"""Prompts that are read alone."""
BATCHES = (32, 16, 8, 4, 2, 1)
SHORT_TOKENS = 32
"""Prompts of batches that decode with next to no cache to read."""
LONG_BATCH = 8
"""Sequences that decode with as much of it as READING_S can fill."""
DECODE_STEPS = 16
"""Steps that each batch is timed for."""
LEADER_TOKENS = 512
"""A prompt that is read while others come."""
JOINED = (4, 12)
JOINED_TOKENS = 64
"""Of each of those others."""
JOINED_STEPS = 5
"""An engine that plans ahead reads them a step later."""
READING_S = 4.0
"""So long a batch's prompts may take to be read, before it decodes."""
TokenTimes = Sequence[Sequence[float]]
"""Seconds of each token of each request of a load."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A kind of step that is timed."""

    name: str
    chunks: tuple[Chunk, ...]
    seconds: Callable[[TokenTimes], float | None]
    """Reads the step's seconds from a load's token times; None where there was no such step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """Requests that are sent at once, and what they show."""

    requests: tuple[Request, ...]
    points: tuple[Point, ...]


def prompts(facts: EngineFacts) -> tuple[Load, ...]:
    """Prompts alone, each read in one step."""
    longest = min(facts.max_model_len - 1, facts.step_tokens)
    return tuple(_prompt(tokens) for tokens in PROMPTS_TOKENS if tokens <= longest)


def _prompt(tokens: int) -> Load:
    chunk = Chunk(new_tokens=tokens, context_tokens=0)
    point = Point(name=f"prompt of {tokens}", chunks=(chunk,), seconds=lambda times_s: times_s[0][0])
    return Load(requests=(Request(prompt_tokens=tokens, output_tokens=1),), points=(point,))


def joined(facts: EngineFacts, prompt_tokens_per_s: float) -> tuple[Load, ...]:
    """Several prompts that come while another is read, and are read together in the step after it."""
    room = min(facts.slots, (facts.step_tokens - 1) // JOINED_TOKENS) - 1
    fits = facts.max_model_len >= LEADER_TOKENS + JOINED_STEPS and facts.step_tokens >= LEADER_TOKENS
    after_s = LEADER_TOKENS / prompt_tokens_per_s / 3
    loads = (_joined(count, after_s) for count in JOINED if fits and count <= room)
    return tuple(load for load in loads if have_room(load.requests, facts))


def _joined(count: int, after_s: float) -> Load:
    leader = Request(prompt_tokens=LEADER_TOKENS, output_tokens=JOINED_STEPS)
    other = Request(prompt_tokens=JOINED_TOKENS, output_tokens=1, after_s=after_s)
    decode = Chunk(new_tokens=1, context_tokens=LEADER_TOKENS)
    prompts = Chunk(new_tokens=JOINED_TOKENS, context_tokens=0, count=count)
    point = Point(name=f"{count} prompts of {JOINED_TOKENS}", chunks=(decode, prompts), seconds=joined_step_s)
    return Load(requests=(leader, *[other] * count), points=(point,))


def decodes(facts: EngineFacts, prompt_tokens_per_s: float) -> tuple[Load, ...]:
    """With little and with much in the cache a batch that melts away: half of it ends every DECODE_STEPS."""
    readable_tokens = READING_S * prompt_tokens_per_s
    long_tokens = 2 ** int(log2(max(1.0, readable_tokens / LONG_BATCH)))
    found = []
    for context in sorted({SHORT_TOKENS, max(2 * SHORT_TOKENS, min(long_tokens, facts.max_model_len // 2))}):
        batches = [batch for batch in BATCHES if batch <= min(facts.slots, max(1, readable_tokens / context))]
        loads = (_melting(batch, context, facts) for batch in batches)
        found += [load for load in loads if have_room(load.requests, facts)][:1]
    return tuple(found)


def _melting(batch: int, context: int, facts: EngineFacts) -> Load:
    stages = BATCHES[BATCHES.index(batch) :]
    # The first prompts that were read decode while the last are read: they make so many tokens more.
    room = max(1, facts.step_tokens - batch)
    read_after = [ceil((number + 1) * context / room) for number in range(batch)]
    ahead = [read_after[-1] + 2 - steps for steps in read_after]
    lives = [sum(stage > number for stage in stages) * DECODE_STEPS for number in range(batch)]

    def point(stage: int) -> Point:
        made_tokens = fmean(ahead[:stage]) + lives[stage - 1] - DECODE_STEPS / 2
        chunk = Chunk(new_tokens=1, context_tokens=context + made_tokens, count=stage)
        return Point(
            name=f"{stage} decode at {context}",
            chunks=(chunk,),
            seconds=lambda times_s: decoding_step_s(times_s, stage),
        )

    return Load(
        requests=tuple(
            Request(prompt_tokens=context, output_tokens=before + life)
            for before, life in zip(ahead, lives, strict=True)
        ),
        points=tuple(point(stage) for stage in stages),
    )


def have_room(requests: Sequence[Request], facts: EngineFacts) -> bool:
    """Whether the engine holds all of them at once: none waits for cache, or is refused for its length."""
    each = [request.prompt_tokens + request.output_tokens for request in requests]
    return max(each) <= facts.max_model_len and sum(each) <= 0.9 * facts.kv_tokens


def decoding_step_s(times_s: TokenTimes, batch: int) -> float | None:
    """The mean step in which just so many sequences decode, after all prompts were read. The first request lives
    longest: its tokens tell the steps.
    """
    begun_s = max(times[0] for times in times_s)
    steps = [(before, after) for before, after in pairwise(times_s[0]) if before >= begun_s]
    took = [after - before for before, after in steps if _decoding(times_s, (before + after) / 2) == batch]
    return fmean(took) if took else None


def _decoding(times_s: TokenTimes, now_s: float) -> int:
    return sum(times[0] < now_s < times[-1] for times in times_s)


def joined_step_s(times_s: TokenTimes) -> float | None:
    """The step in which all prompts but the first are read, beside the first one's decoding."""
    leader, others = times_s[0], times_s[1:]
    for before, after, later in zip(leader, leader[1:], leader[2:], strict=False):
        # Tokens of one step come together: the middle between two of the leader's is far from both.
        if all((before + after) / 2 < times[0] < (after + later) / 2 for times in others):
            return after - before
    return None
