"""A model's variants share what comes by the router's rule, and never serve below what is asked."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from autoscaling import Targets
from cluster.engine_memory import EngineSettings
from cluster.step_work import Chunk
from routing import Prefer, Wish
from simulation.fleet import simulate
from simulation.outcome import Run, summary
from simulation.policy import headrace
from simulation.setup import Setup
from simulation.trace import Trace
from simulation.variants import Form, simulate_variants

TARGETS = Targets(ttft_s=1.0, token_s=0.1)
CALM, TOO_MUCH = 4.0, 24.0
"""Requests a second; one replica of the model serves about 12."""


def linear(chunks: Sequence[Chunk]) -> float:
    return 0.01 + sum(chunk.count * (0.0005 + 5e-5 * chunk.new_tokens) for chunk in chunks)


def setup(times: float = 1.0, **replicas: int) -> Setup:
    """An engine whose steps take so many times as long."""
    return Setup(
        settings=EngineSettings(max_sequences=64, batched_tokens=2048, context_tokens=8192),
        kv_blocks=4096,
        step=lambda chunks: times * linear(chunks),
        startup_s=10.0,
        **{"min_replicas": 1, "max_replicas": 1, "begins_with": 1} | replicas,
    )


def forms(**cheap: int) -> list[Form]:
    """A model, and a variant of it that takes half the time."""
    return [
        Form(name="m", quality=1.0, setup=setup()),
        Form(name="w4", quality=0.9, setup=setup(0.5, **cheap)),
    ]


def requests(per_s: float, seconds: int = 90) -> Trace:
    source = np.random.default_rng(5)
    at_s = np.cumsum(source.exponential(1 / per_s, int(per_s * seconds)))
    count = len(at_s)
    return Trace(
        at_s=at_s,
        prompt_tokens=np.full(count, 500, dtype=np.int32),
        output_tokens=np.full(count, 50, dtype=np.int32),
    )


def shares(run: Run) -> dict[str, float]:
    total = sum(one.requests for one in run.served)
    assert total == run.trace.requests
    return {one.name: one.requests / total for one in run.served}


def good(run: Run) -> float:
    return summary(run, TARGETS).attainment


def play(per_s: float, every: list[Form] | None = None, **more: Any) -> Run:
    return simulate_variants(requests(per_s), every or forms(), TARGETS, **more)


def test_while_the_model_is_in_time_it_answers_alone() -> None:
    run = play(CALM)
    assert shares(run) == {"m": 1.0, "w4": 0.0}
    assert good(run) == 1.0


def test_under_overload_both_serve_and_more_requests_are_in_time_than_without_the_variant() -> None:
    run, alone = play(TOO_MUCH), simulate(requests(TOO_MUCH), setup(), headrace(TARGETS), TARGETS)
    assert min(shares(run).values()) > 0.2
    assert good(run) > 1.3 * good(alone)
    assert np.isfinite(run.last_s).all()


def test_no_request_is_served_below_its_quality_however_much_waits() -> None:
    assert shares(play(TOO_MUCH, wish=lambda place: Wish(min_quality=0.95))) == {"m": 1.0, "w4": 0.0}
    half = play(TOO_MUCH, wish=lambda place: Wish(min_quality=0.95 if place % 2 else 0.0))
    assert shares(half)["w4"] <= 0.5


def test_who_prefers_cost_gets_the_variant() -> None:
    run = play(CALM, wish=lambda place: Wish(prefer=Prefer.COST))
    assert shares(run) == {"m": 0.0, "w4": 1.0}


def test_a_variant_that_may_have_none_is_started_when_the_model_is_at_its_end_and_not_before() -> None:
    asleep = {"min_replicas": 0, "begins_with": 0, "max_replicas": 2}
    calm = play(CALM, forms(**asleep))
    assert not [change for change in calm.changes if change.reason.startswith("w4")]
    much = play(TOO_MUCH, forms(**asleep))
    first = next(change for change in much.changes if change.reason.startswith("w4"))
    assert (first.before, first.replicas) == (0, 1)
    assert shares(much)["w4"] > 0.2
    assert much.device_s < 3 * much.end_s


@pytest.mark.parametrize("per_s", [CALM, TOO_MUCH])
def test_the_same_arguments_give_the_same_run(per_s: float) -> None:
    one, other = play(per_s, seed=3), play(per_s, seed=3)
    assert (one.first_s == other.first_s).all()
    assert one.served == other.served
