"""Do the figures of a serving comparison say what was measured?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.serving_report import OURS, THEIRS, Turn, summarise, table
from benchmarks.streaming_client import Seen

costs = st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=1, max_size=5)


def turn(server: str, cpu_s: dict[str, float], *, number: int = 1, tokens: int = 1000) -> Turn:
    seen = Seen(
        tokens=tokens,
        content_events=tokens,
        wall_s=2.0,
        ttft_p50_s=0.1,
        ttft_p95_s=0.2,
        per_token_p50_s=0.01,
        client_cpu_s=0.0,
    )
    return Turn(
        server=server,
        number=number,
        streams=8,
        seen=seen,
        window_s=2.0,
        cpu_s=cpu_s,
        idle_server_cores=0.0,
        others_cores=0.0,
    )


def test_the_path_is_everything_between_client_and_engine_core_and_nothing_else() -> None:
    ours = turn(OURS, {"router": 0.1, "engine replica": 0.2, "engine core": 5.0, "Ray": 3.0})
    theirs = turn(THEIRS, {"API server": 0.6, "engine core": 5.0})
    summary = summarise([theirs, ours])["8"]
    assert summary[OURS]["path_us_per_token"]["median"] == pytest.approx(300)
    assert summary[THEIRS]["path_us_per_token"]["median"] == pytest.approx(600)
    assert summary["ratio"]["path_us_per_token"]["median"] == pytest.approx(0.5)
    assert summary[OURS]["ray_us_per_token"]["median"] == pytest.approx(3000)


@given(costs)
def test_ratios_are_of_turns_of_the_same_round(rounds: list[tuple[float, float]]) -> None:
    turns = [
        turn(server, {part: spent}, number=number)
        for number, (ours, theirs) in enumerate(rounds)
        for server, part, spent in ((THEIRS, "API server", theirs), (OURS, "router", ours))
    ]
    ratio = summarise(turns)["8"]["ratio"]["path_us_per_token"]
    expected = [ours / theirs for ours, theirs in rounds]
    assert (ratio["min"], ratio["max"]) == (pytest.approx(min(expected)), pytest.approx(max(expected)))
    assert ratio["min"] <= ratio["median"] <= ratio["max"]


def test_the_table_has_a_line_for_each_server_and_one_for_the_ratio() -> None:
    turns = [turn(THEIRS, {"API server": 0.6}), turn(OURS, {"router": 0.3})]
    result = {"summary": summarise(turns), "idle_cores": {OURS: {"Ray": 0.1}, THEIRS: {}}}
    lines = table(result).splitlines()
    assert [line.split(" | ")[:3] for line in lines[2:5]] == [
        ["| 8", THEIRS, "600 (600-600)"],
        ["| 8", OURS, "300 (300-300)"],
        ["| 8", "ratio", "0.50 (0.50-0.50)"],
    ]
    assert len({line.count("|") for line in lines[:5]}) == 1
