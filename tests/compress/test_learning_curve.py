"""A training's course in one line of text."""

from hypothesis import given
from hypothesis import strategies as st

from compress.learning_curve import BARS, CELLS, Curve, drawn

LOSSES = st.lists(st.floats(0, 100), min_size=1, max_size=200)


@given(LOSSES)
def test_it_has_a_bar_for_each_step_until_there_is_no_more_room(losses: list[float]) -> None:
    assert len(drawn(losses)) == min(CELLS, len(losses))
    assert set(drawn(losses)) <= set(BARS)


def test_what_falls_ends_low_and_what_is_level_stays_low() -> None:
    assert drawn([4.0, 3.0, 2.0, 1.0]) == "█▆▃▁"
    assert drawn([2.0, 2.0]) == "▁▁"
    assert drawn([2.0, float("nan")]) == "▁▁"


@given(LOSSES)
def test_a_report_keeps_every_step(losses: list[float]) -> None:
    curve = Curve()
    for number, loss in enumerate(losses):
        curve.add(loss, number / 2)
    found = curve.found()
    assert found["loss"] == losses
    assert found["step"] == list(range(1, len(losses) + 1))
    assert curve.lasted_s == found["seconds"][-1]


def test_a_line_says_where_it_began_and_where_it_is() -> None:
    assert Curve(loss=[2.0, 1.0], seconds=[1.0, 2.0]).told() == "loss 2.000 █▁ 1.000"
