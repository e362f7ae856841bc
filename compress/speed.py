"""How fast does vLLM run an artefact on this machine, beside its parent? In turns, so that noise meets both."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from compress import report, statistics
from compress.checkpoint_engine import CheckpointEngine
from compress.recipe import Speed

SPIN_S = 1.1
"""vLLM's idle core spins for a second after its last step: the other engine's turn begins after that."""
DECODE_PROMPT_TOKENS = 16
What = Literal["prefill", "decode", "first_token"]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one engine did in one round at one batch size."""

    prefill_tokens_per_s: float
    first_token_s: float
    """Mean over the requests sent at once."""
    decode_tokens_per_s: float


def measure(
    parent: CheckpointEngine,
    artefact: CheckpointEngine,
    wish: Speed,
    vocabulary: int,
    seed: int,
    tell: Callable[[float], None],
) -> tuple[report.Speed, ...]:
    """Speeds at each batch size, with intervals over the rounds."""
    source = random.Random(seed)
    turns: dict[int, list[tuple[Turn, Turn]]] = {batch: [] for batch in wish.batches}
    schedule = list(_schedule(wish))
    for number, (round_number, batch) in enumerate(schedule):
        prompts = [[source.randrange(vocabulary) for _ in range(wish.prompt_tokens)] for _ in range(batch)]
        one, other = (parent, artefact) if round_number % 2 else (artefact, parent)
        first, second = _turn(one, prompts, wish), _turn(other, prompts, wish)
        if round_number >= 0:
            turns[batch].append((first, second) if one is parent else (second, first))
        tell((number + 1) / len(schedule))
    return tuple(speed for batch in wish.batches for speed in _speeds(batch, turns[batch], wish))


def _schedule(wish: Speed) -> Iterator[tuple[int, int]]:
    """(round, batch) in the order of measuring; round -1 warms up and isn't counted."""
    for round_number in range(-1, wish.rounds):
        for batch in wish.batches:
            yield round_number, batch


def _turn(engine: CheckpointEngine, prompts: list[list[int]], wish: Speed) -> Turn:
    time.sleep(SPIN_S)
    first_s, prefill_s = engine.seconds(prompts, 1)
    short = [prompt[:DECODE_PROMPT_TOKENS] for prompt in prompts]
    begun_s, total_s = engine.seconds(short, wish.output_tokens)
    return Turn(
        prefill_tokens_per_s=sum(map(len, prompts)) / prefill_s,
        first_token_s=sum(first_s) / len(first_s),
        decode_tokens_per_s=len(prompts) * (wish.output_tokens - 1) / (total_s - max(begun_s)),
    )


def _speeds(batch: int, turns: list[tuple[Turn, Turn]], wish: Speed) -> Iterator[report.Speed]:
    def speed(what: What, unit: Literal["tokens/s", "s"], read: Callable[[Turn], float]) -> report.Speed:
        parent, artefact = (np.array([read(turn) for turn in side]) for side in zip(*turns, strict=True))
        return report.Speed(
            what=what,
            batch=batch,
            prompt_tokens=DECODE_PROMPT_TOKENS if what == "decode" else wish.prompt_tokens,
            output_tokens=wish.output_tokens if what == "decode" else 1,
            unit=unit,
            parent=statistics.mean(parent),
            artefact=statistics.mean(artefact),
            ratio=statistics.paired_ratio(artefact=artefact, parent=parent),
            rounds=len(turns),
        )

    yield speed("prefill", "tokens/s", lambda turn: turn.prefill_tokens_per_s)
    yield speed("first_token", "s", lambda turn: turn.first_token_s)
    yield speed("decode", "tokens/s", lambda turn: turn.decode_tokens_per_s)
