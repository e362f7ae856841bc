"""Do the figures of a serving comparison say what was measured?"""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import serving_plot
from benchmarks.load_generator import Seen
from benchmarks.serving_report import BASE, parts_table, ratio, summarise, table
from benchmarks.serving_turns import Cell, Turn

OURS = "headrace"
CELL = Cell(model="tiny", api="chat", streams=8)
SEEN = Seen(
    tokens=1000,
    content_events=1000,
    wall_s=2.0,
    ttft_p50_s=0.1,
    ttft_p95_s=0.2,
    gap_p50_s=0.01,
    gap_p95_s=0.02,
)

costs = st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=1, max_size=5)


def turn(system: str, cpu_s: dict[str, float], *, number: int = 1, problem: str = "", cell: Cell = CELL) -> Turn:
    return Turn(
        cell=cell,
        round=number,
        system=system,
        seen=SEEN,
        problem=problem,
        window_s=2.0,
        cpu_s=cpu_s,
        idle_systems_cores=0.0,
        generator_cores=0.0,
        others_cores=0.0,
        load_average=0.0,
    )


def test_the_path_is_everything_between_client_and_engine_core_and_nothing_else() -> None:
    peer = turn("ray-llm", {"proxy": 0.3, "router": 0.1, "engine replica": 0.2, "engine core": 5.0, "Ray": 3.0})
    base = turn(BASE, {"API server": 0.6, "engine core": 5.0})
    their, our = summarise([peer, base])
    assert (their["system"], our["system"]) == (BASE, "ray-llm")
    assert our["median"]["path_us_per_token"] == pytest.approx(600)
    assert our["median"]["ray_us_per_token"] == pytest.approx(3000)
    assert our["ratio"]["path_us_per_token"] == {"mean": pytest.approx(1.0), "low": None, "high": None}


@given(costs)
def test_ratios_are_of_turns_of_the_same_round_and_lie_between_those_of_the_rounds(
    rounds: list[tuple[float, float]],
) -> None:
    turns = [
        turn(system, {part: spent}, number=number)
        for number, (ours, theirs) in enumerate(rounds)
        for system, part, spent in ((BASE, "API server", theirs), (OURS, "router", ours))
    ]
    told = summarise(turns)[1]["ratio"]["path_us_per_token"]
    each = [ours / theirs for ours, theirs in rounds]
    assert min(each) * (1 - 1e-9) <= told["mean"] <= max(each) * (1 + 1e-9)
    if len(each) > 1:
        assert told["low"] <= told["mean"] * (1 + 1e-9)
        assert told["mean"] <= told["high"] * (1 + 1e-9)


@given(st.floats(0.1, 10), st.lists(st.floats(0.1, 10), min_size=2, max_size=6))
def test_what_is_always_so_many_times_the_base_has_no_doubt_about_it(times: float, theirs: list[float]) -> None:
    told = ratio([times * value for value in theirs], theirs)
    assert told == {name: pytest.approx(times) for name in ("mean", "low", "high")}


def test_a_refused_turn_is_counted_as_such_and_nowhere_else() -> None:
    turns = [
        turn(BASE, {"API server": 0.5}),
        turn(OURS, {"router": 9.0}, problem="0.7 events per token"),
        turn(OURS, {"router": 0.5}),
        turn(OURS, {"router": 9.0}, number=2, problem="0.7 events per token"),
        turn(BASE, {"API server": 0.5}, number=2),
    ]
    base, ours = summarise(turns)
    assert (base["rounds"], ours["rounds"], ours["refused_turns"]) == (2, 1, 2)
    assert ours["ratio"]["path_us_per_token"]["mean"] == pytest.approx(1.0)


def test_tables_have_a_line_for_each_system_of_each_cell() -> None:
    wide = Cell(model="tiny", api="completions", streams=32)
    turns = [
        turn(system, {part: spent}, number=number, cell=cell)
        for cell in (wide, CELL)
        for number in (1, 2)
        for system, part, spent in ((BASE, "API server", 0.6), (OURS, "router", 0.3))
    ]
    lines = table(summarise(turns)).splitlines()[2:]
    assert [line.split(" | ")[:6] for line in lines] == [
        ["| tiny", "chat", "8", BASE, "2", "600"],
        ["| tiny", "chat", "8", OURS, "2", "300 (x0.50, 0.50-0.50)"],
        ["| tiny", "completions", "32", BASE, "2", "600"],
        ["| tiny", "completions", "32", OURS, "2", "300 (x0.50, 0.50-0.50)"],
    ]
    both = table(summarise(turns)).splitlines(), parts_table(summarise(turns)).splitlines()
    assert [len({line.count("|") for line in lines}) for lines in both] == [1, 1]


def test_a_plot_names_every_system_but_the_base_and_is_the_same_each_time(tmp_path: Path) -> None:
    turns = [turn(BASE, {"API server": 0.6}), turn(OURS, {"router": 0.3}), turn("ray-llm", {"proxy": 3.0})]
    for name in ("one.svg", "other.svg"):
        serving_plot.draw(summarise(turns), "tiny", tmp_path / name)
    said = (tmp_path / "one.svg").read_text()
    assert said == (tmp_path / "other.svg").read_text()
    assert "Headrace" in said
    assert "ray.serve.llm, as shipped" in said
    assert "HAProxy" not in said
