"""Does a simulated fleet still do what it did when these numbers were written down?

Whoever makes it quicker must not change them; who changes what is simulated writes them anew, and says why.
"""

from collections.abc import Sequence

import numpy as np
import pytest

from autoscaling import Targets
from cluster.engine_memory import EngineSettings
from cluster.step_work import Chunk
from simulation.baselines import Wanted
from simulation.fleet import simulate
from simulation.outcome import Run
from simulation.setup import Setup
from simulation.trace import Trace


def linear(chunks: Sequence[Chunk]) -> float:
    return 0.01 + sum(
        chunk.count * (0.0005 + 5e-5 * chunk.new_tokens + 1e-7 * chunk.context_tokens) for chunk in chunks
    )


def run(*, prefixes: bool, failure_s: float, kv_blocks: int) -> Run:
    """Some minutes of three replicas, a little too much load for them."""
    source = np.random.default_rng(7)
    at_s = np.cumsum(source.exponential(0.055, 4_000))
    prompts, answers = (np.clip(source.lognormal(mean, 1.0, 4_000), 1, 4_000).astype(np.int32) for mean in (5.5, 4.5))
    begins = source.integers(0, 40, 4_000)
    blocks = [
        tuple(range(100 * begin, 100 * begin + tokens // 64)) for begin, tokens in zip(begins, prompts, strict=True)
    ]
    setup = Setup(
        settings=EngineSettings(max_sequences=64, batched_tokens=2_048, context_tokens=8_192),
        kv_blocks=kv_blocks,
        step=linear,
        startup_s=20.0,
        failure_s=failure_s,
        begins_with=3,
        max_replicas=3,
    )
    load = Trace(
        at_s=at_s - at_s[0],
        prompt_tokens=prompts,
        output_tokens=answers,
        prefixes=blocks if prefixes else (),
        block_tokens=64 if prefixes else 0,
    )
    return simulate(load, setup, lambda seen, memory: (Wanted(replicas=3, reason="as ever"), memory), Targets(), seed=3)


@pytest.mark.parametrize(
    ("prefixes", "failure_s", "kv_blocks", "first_s", "last_s", "queued", "found", "failures"),
    [
        (False, float("inf"), 4_096, 0.0928299494800, 4.58232554208, 0, 0, 0),
        (True, 200.0, 4_096, 0.1359975520560, 5.00831240119, 191, 1_149_696, 5),
        (True, float("inf"), 700, 15.0967593618863, 18.8131088378113, 57_985, 420_160, 0),
    ],
    ids=["plain", "prefixes and failures", "preemptions"],
)
def test_a_run_is_what_it_was(
    prefixes: bool,
    failure_s: float,
    kv_blocks: int,
    first_s: float,
    last_s: float,
    queued: int,
    found: int,
    failures: int,
) -> None:
    played = run(prefixes=prefixes, failure_s=failure_s, kv_blocks=kv_blocks)
    assert (played.first_s - played.trace.at_s).mean() == pytest.approx(first_s, rel=1e-9)
    assert (played.last_s - played.trace.at_s).mean() == pytest.approx(last_s, rel=1e-9)
    assert (played.queued.sum(), played.found_tokens.sum(), played.failures) == (queued, found, failures)
