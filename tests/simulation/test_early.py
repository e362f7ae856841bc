"""Does a router that holds nothing back see what replicas have, and send at once?"""

from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np

from autoscaling import Targets
from cluster.engine_memory import EngineSettings
from cluster.step_work import Chunk
from simulation.baselines import Wanted
from simulation.choosers import Asked, Seen, round_robin
from simulation.early import Early
from simulation.fleet import simulate
from simulation.setup import Setup
from simulation.trace import Trace


def linear(chunks: Sequence[Chunk]) -> float:
    return 0.01 + sum(chunk.count * (0.0005 + 5e-5 * chunk.new_tokens) for chunk in chunks)


SETUP = Setup(
    settings=EngineSettings(max_sequences=8, batched_tokens=256, context_tokens=4096),
    kv_blocks=1000,
    step=linear,
    begins_with=2,
    max_replicas=2,
)


def always(seen: Any, memory: Any) -> tuple[Wanted, Any]:
    return Wanted(replicas=2, reason="as ever"), memory


class Told:
    """Goes round, and keeps what it was told."""

    def __init__(self) -> None:
        self.seen: list[Sequence[Seen]] = []
        self.asked: list[Asked] = []

    def __call__(self, asked: Asked, seen: Sequence[Seen], random: Random) -> int:
        self.asked.append(asked)
        self.seen.append(seen)
        return round_robin(asked, seen, random)


def played(at_s: list[float], prefixes: list[tuple[int, ...]], prompt: int = 160, answer: int = 20) -> Told:
    told, count = Told(), len(at_s)
    trace = Trace(
        at_s=np.array(at_s),
        prompt_tokens=np.full(count, prompt, dtype=np.int32),
        output_tokens=np.full(count, answer, dtype=np.int32),
        prefixes=prefixes,
        block_tokens=16,
    )

    def desk(setup: Setup, **more: Any) -> Early:
        return Early(setup, chooser=told, **more)

    run = simulate(trace, SETUP, always, Targets(), desk=desk)
    assert np.isfinite(run.last_s).all()
    assert not run.queued.any()
    return told


def test_what_was_sent_and_has_not_ended_is_seen() -> None:
    same, other = tuple(range(10)), tuple(range(10, 20))
    told = played([0.0, 0.001, 0.002, 0.003, 60.0], [same, other, same, other, same])
    first, third, fifth = told.seen[0], told.seen[2], told.seen[4]
    assert (
        first
        == [Seen(requests=0, waiting=0, tokens=0, unread_tokens=0, held_blocks=0, kv_share=0.0, new_blocks=10)] * 2
    )
    warm, cold = third
    assert (warm.requests, warm.tokens, warm.held_blocks, warm.new_blocks) == (1, 160, 10, 0)
    assert (cold.requests, cold.tokens, cold.held_blocks, cold.new_blocks) == (1, 160, 10, 10)
    # What a step reads is seen when it begins.
    assert (warm.sent_before_tokens, cold.sent_before_tokens, warm.cached_tokens) == (159, 0, 159)
    assert [(one.requests, one.tokens, one.held_blocks, one.kv_share) for one in fifth] == [(0, 0, 0, 0.0)] * 2
    assert [one.cached_tokens for one in fifth] == [159, 0]
    assert [one.sent_tokens for one in fifth] == [160, 160]
    assert [asked.number for asked in told.asked] == [0, 1, 2, 3, 4]


def test_what_a_full_engine_can_not_take_waits_there() -> None:
    told = played([0.001 * number for number in range(40)], [()] * 40, answer=400)
    assert [one.waiting for one in told.seen[39]] > [8, 8]
    assert all(one.unread_tokens > 0 for one in told.seen[39])
