"""The rate at which the queue empties is what left it lately."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing import Departure, drain_tokens_per_s


def left(at_s: float, prompt_tokens: int) -> Departure:
    return Departure(at_s=at_s, prompt_tokens=prompt_tokens)


def test_nothing_that_left_means_no_known_rate() -> None:
    assert drain_tokens_per_s([], 5.0) == 0.0
    assert drain_tokens_per_s([left(0.0, 100)], 100.0) == 0.0


def test_a_steady_queue_shows_its_rate() -> None:
    departures = [left(at_s / 10, 50) for at_s in range(1000)]
    assert drain_tokens_per_s(departures, 100.0) == pytest.approx(500, rel=0.02)


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 1000)), min_size=1), st.floats(100, 110))
def test_the_rate_is_never_above_what_left(departures: list[tuple[float, int]], now_s: float) -> None:
    rate = drain_tokens_per_s([left(*departure) for departure in departures], now_s)
    assert 0 <= rate <= sum(tokens for _, tokens in departures)
