"""Who is beaten is told rightly, and only what can be compared is compared."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from headrace.pareto import beaten_in, candidates, dominated, fronts, unlike
from tests.headrace.report_samples import depth_width, masked, w8a8

Points = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8)


@given(Points)
def test_whoever_is_dominated_is_so_by_one_who_is_not(found: list[tuple[int, int]]) -> None:
    kept = [point for point, lost in zip(found, dominated(found), strict=True) if not lost]
    assert bool(kept) == bool(found)
    for (x, y), lost in zip(found, dominated(found), strict=True):
        better = [(a, b) for a, b in kept if a <= x and b <= y and (a, b) != (x, y)]
        assert lost == bool(better)


@given(Points, st.randoms())
def test_order_and_repetition_do_not_change_who_is_dominated(found: list[tuple[int, int]], random: Random) -> None:
    verdicts = dict(zip(found, dominated(found), strict=True))
    shuffled = found + found
    random.shuffle(shuffled)
    assert dominated(shuffled) == [verdicts[point] for point in shuffled]


def test_only_what_was_judged_alike_is_compared() -> None:
    report, other = depth_width(), w8a8()
    elsewhere = other.model_copy(update={"lineage": other.lineage.model_copy(update={"evaluation_hash": "0" * 64})})
    assert unlike(report, other) is None
    assert [one.name for one in candidates(report, [other, report])] == ["parent", "depth3-ffn25", "w8a8"]
    assert [one.name for one in candidates(report, [elsewhere])] == ["parent", "depth3-ffn25"]
    assert unlike(report, elsewhere) == "judged on other text"


def test_speeds_of_another_machine_are_not_drawn() -> None:
    report, other = depth_width(), w8a8()
    moved = other.model_copy(update={"lineage": other.lineage.model_copy(update={"machine": {"cores": 64}})})
    sizes, *speeds = fronts(candidates(report, [moved]))
    assert [one.name for one in sizes.members] == ["parent", "depth3-ffn25", "w8a8"]
    assert all([one.name for one in front.members] == ["parent", "depth3-ffn25"] for front in speeds)


def test_the_beaten_are_told_front_by_front() -> None:
    report = masked()
    sizes, _, _ = fronts(candidates(report, [depth_width(), w8a8()]))
    assert dict(zip((one.name for one in sizes.members), sizes.beaten, strict=True)) == {
        "parent": False,
        "magnitude-2-4": True,
        "depth3-ffn25": True,
        "w8a8": False,
    }


def test_a_candidate_knows_where_it_is_beaten() -> None:
    found = candidates(depth_width(), [w8a8()])
    shown = fronts(found)
    assert [(one.name, beaten_in(one, shown)) for one in found] == [
        ("parent", []),
        ("depth3-ffn25", ["bytes"]),
        ("w8a8", ["decode at batch 1"]),
    ]
