"""The comparison of the simulator with real fleets: its loads, its figures, and what it calls an error."""

import pytest

from benchmarks.fidelity import ANSWER_TOKENS, SLOTS, Pair, Seen, Told, requests, simulated, summary
from benchmarks.pace import STEP_S


def seen(ttft_s: float, token_s: float = 0.05) -> Seen:
    return Seen(ttft_p50_s=ttft_s, ttft_p95_s=2 * ttft_s, token_s=token_s, tokens_per_s=100.0)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_load_asks_for_its_share_of_what_the_slots_can_make(replicas: int) -> None:
    trace = requests(0.5, replicas, 2_000.0, seed=1)
    asked = trace.output_tokens.sum() / trace.span_s
    assert asked == pytest.approx(0.5 * replicas * SLOTS / STEP_S, rel=0.05)
    assert trace.output_tokens.mean() == pytest.approx(ANSWER_TOKENS, rel=0.05)


def test_the_simulator_makes_a_token_a_step_and_waits_for_one_and_a_half() -> None:
    told = simulated(requests(0.3, 1, 120.0, seed=2), 1, cache_tokens=100_000, told=Told(step_s=STEP_S, path_s=0.0))
    assert told.token_s == pytest.approx(STEP_S)
    assert STEP_S < told.ttft_p50_s < 2 * STEP_S
    farther = simulated(requests(0.3, 1, 120.0, seed=2), 1, cache_tokens=100_000, told=Told(step_s=STEP_S, path_s=0.01))
    assert farther.ttft_p50_s == pytest.approx(told.ttft_p50_s + 0.01)


def test_errors_are_shares_of_what_was_seen_live() -> None:
    pairs = [
        Pair(
            replicas=1,
            load="half",
            round=number,
            requests=9,
            told=Told(step_s=0.05, path_s=0.0),
            live=seen(1.0),
            simulated=seen(told_s),
        )
        for number, told_s in enumerate((0.9, 1.0, 1.2))
    ]
    rows = {row["figure"]: row for row in summary(pairs)}
    assert rows["ttft_p50_s"]["median"] == 0
    assert rows["ttft_p50_s"]["least"] == pytest.approx(-0.1)
    assert rows["ttft_p95_s"]["largest"] == pytest.approx(0.2)
