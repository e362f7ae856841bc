"""Is overload as heavy as it is said, and is only what keeps its target counted as good?"""

import numpy as np
import pytest

from benchmarks.overload import capacity_per_s, drawn, point
from benchmarks.routing_scene import WARM, fleet
from routing import Tier
from simulation.outcome import Run
from simulation.trace import Trace

SPAN_S = 90.0


def short(count: int = 400) -> Trace:
    return Trace(
        at_s=np.linspace(0, 60, count),
        prompt_tokens=np.full(count, 500, dtype=np.int32),
        output_tokens=np.full(count, 20, dtype=np.int32),
    )


def test_an_engine_s_capacity_is_near_what_its_steps_can_read() -> None:
    """Prompts are nearly all of the work: a token of them takes 0.1 ms."""
    setup = fleet("h200", 1)
    assert capacity_per_s(setup, short(), seed=0) == pytest.approx(1e4, rel=0.3)


def test_so_many_tokens_come_in_each_second() -> None:
    trace = drawn(short(), 5200.0, SPAN_S, seed=1)
    assert trace.requests == 10 * SPAN_S
    assert trace.span_s <= SPAN_S


def test_what_is_refused_or_late_is_not_good() -> None:
    """Six come in the counted time, one of each tier in time, one of each late or never."""
    at_s = np.array([0.0, *[WARM * SPAN_S + 1] * 6])
    waits_s = np.array([0.5, 0.9, 1.1, 9.0, 11.0, 30.0, np.inf])
    trace = Trace(at_s=at_s, prompt_tokens=np.full(7, 90, np.int32), output_tokens=np.full(7, 10, np.int32))
    run = Run(
        trace=trace,
        first_s=at_s + waits_s,
        last_s=at_s + waits_s + 1,
        found_tokens=np.zeros(7, np.int32),
        end_s=100.0,
        device_s=0.0,
        running=np.zeros(1, np.int32),
        present=np.zeros(1, np.int32),
        queued=np.zeros(1, np.int32),
        changes=[],
        refused=1,
        failures=0,
    )
    tiers = np.array([0, 0, 0, 1, 1, 2, 2])
    told = point(run, tiers, capacity=10.0, span_s=SPAN_S, scene="a", replicas=1, seed=0, router="x")
    assert told.met == (0.5, 0.5, 0.5)
    assert told.interactive_ttft_p50_s == pytest.approx(1.0)
    assert told.goodput == pytest.approx(3 * 100 / (SPAN_S * (1 - WARM)) / 10)
    assert told.served == pytest.approx(5 * 100 / (SPAN_S * (1 - WARM)) / 10)
    assert told.refused == pytest.approx(1 / 7)
    assert len(told.met) == len(Tier)
