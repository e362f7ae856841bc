"""Are routers compared over the load that the rules say, and summed up as it was measured?"""

import numpy as np
import pytest

from benchmarks.routing import ROUTERS, Point, point, ratios, run_of
from benchmarks.routing_scene import WARM, busy_s, conversations, fleet, ideal_tokens, loaded, step_costs, work_s
from simulation.trace import Trace

SPAN_S = 60.0


def talks(count: int = 12, turns: int = 6) -> Trace:
    """Each goes on where it was, 20 blocks longer, every 5 s; two begin at a time."""
    rows = [(5.0 * turn + talk // 2, talk, turn) for talk in range(count) for turn in range(turns)]
    rows.sort()
    return Trace(
        at_s=np.array([at_s for at_s, _, _ in rows]) - rows[0][0],
        prompt_tokens=np.array([320 * (turn + 1) + 5 for _, _, turn in rows], dtype=np.int32),
        output_tokens=np.full(len(rows), 50, dtype=np.int32),
        prefixes=[tuple(range(1000 * talk, 1000 * talk + 20 * (turn + 1))) for _, talk, turn in rows],
        block_tokens=16,
    )


def test_an_endless_cache_has_what_came_before_but_for_the_last_token() -> None:
    trace = talks(count=1)
    assert ideal_tokens(trace).tolist() == [0, 320, 640, 960, 1280, 1600]
    again = trace.taken(np.array([0, 0]), np.array([0.0, 1.0]))
    assert ideal_tokens(again).tolist() == [0, 320]


def test_conversations_stay_together_and_in_order() -> None:
    trace = talks()
    found = conversations(trace)
    assert sorted(len(talk) for talk in found) == [6] * 12
    for talk in found:
        assert len({trace.prefixes[place][0] for place in talk}) == 1
        assert (np.diff(trace.at_s[talk]) == 5.0).all()


@pytest.mark.parametrize("load", [0.2, 0.6])
def test_load_is_as_heavy_as_it_is_said(load: float) -> None:
    setup, base = fleet("h200", 2), talks()
    costs = step_costs(setup, base)
    wanted_s = busy_s(setup, costs, load)
    trace = loaded(base, costs, busy_s=wanted_s, span_s=SPAN_S, seed=1)
    assert trace.span_s <= SPAN_S
    counted = trace.at_s >= WARM * SPAN_S
    # Conversations that were cut at the begin are new to the caches, so it is a little more work than that.
    assert work_s(trace, costs)[counted].sum() / ((1 - WARM) * SPAN_S) == pytest.approx(wanted_s, rel=0.1)
    assert np.array_equal(trace.at_s, loaded(base, costs, busy_s=wanted_s, span_s=SPAN_S, seed=1).at_s)


def test_in_a_small_fleet_every_router_answers_all_and_caches_are_found() -> None:
    setup, base = fleet("h200", 2), talks()
    costs = step_costs(setup, base)
    trace = loaded(base, costs, busy_s=busy_s(setup, costs, 0.3), span_s=SPAN_S, seed=0)
    found = {}
    for name, desk in ROUTERS.items():
        told = point(run_of(trace, setup, desk, 0), WARM * SPAN_S, scene="talks", replicas=2, seed=0, router=name)
        assert told.ttft_p50_s > 0
        found[name] = told.found
    assert found["headrace"] >= 0.99
    assert found["prefix_only"] >= 0.99
    assert found["round_robin"] < 0.95


def made(router: str, seed: int, ttft_s: float) -> Point:
    return Point(
        scene="a",
        replicas=4,
        seed=seed,
        router=router,
        requests=10,
        ttft_p50_s=ttft_s,
        ttft_p95_s=2 * ttft_s,
        ttft_mean_s=ttft_s,
        token_p50_s=0.02,
        token_p95_s=0.03,
        found=None,
    )


def test_ratios_are_of_the_same_seed() -> None:
    points = [made("headrace", 0, 1.0), made("headrace", 1, 2.0), made("llm_d", 0, 2.0), made("llm_d", 1, 2.0)]
    (one,) = ratios(points)
    assert one["ttft_p50"] == {"mean": 0.75, "least": 0.5, "most": 1.0}
    assert one["ttft_p95"] == one["ttft_p50"]
