"""The rate at which something empties is what left it lately, while there was something to leave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing import Drain


def test_nothing_that_left_means_no_known_rate() -> None:
    drain = Drain()
    drain.enter(0.0)
    assert drain.requests_per_s(5.0) == drain.tokens_per_s(5.0) == 0.0


def test_a_steady_queue_shows_its_rate() -> None:
    drain = Drain()
    for _ in range(2000):
        drain.enter(0.0)
    for place in range(1, 1001):
        drain.leave(place / 10, 50)
    assert drain.requests_per_s(100.0) == pytest.approx(10, rel=0.02)
    assert drain.tokens_per_s(100.0) == pytest.approx(500, rel=0.02)


def test_idle_time_does_not_make_a_queue_slow() -> None:
    drain = Drain()
    for hour in range(20):
        drain.enter(3600.0 * hour)
        drain.leave(3600.0 * hour + 0.5, 100)
    assert drain.requests_per_s(1e5) == pytest.approx(2, rel=0.1)


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 1000)), min_size=1), st.floats(100, 110))
def test_the_rate_is_never_above_what_left(departures: list[tuple[float, int]], now_s: float) -> None:
    drain = Drain()
    for _ in departures:
        drain.enter(0.0)
    for at_s, tokens in sorted(departures):
        drain.leave(at_s, tokens)
    assert 0 <= drain.tokens_per_s(now_s) <= sum(tokens for _, tokens in departures)
