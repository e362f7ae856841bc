"""Do equal replicas count as equal however busy they are, and a slow one as slow?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing import Measured, token_seconds

FIXED_S, TOKEN_S = 0.01, 1e-4
step_tokens = st.floats(1, 8192)


def measured(tokens: float, slowness: float = 1.0) -> Measured:
    """What an engine measures whose steps take FIXED_S + TOKEN_S a token, times its slowness."""
    return Measured(tokens_per_s=tokens / (slowness * (FIXED_S + TOKEN_S * tokens)), step_tokens=tokens)


@given(st.lists(step_tokens, min_size=1, max_size=8))
def test_equal_replicas_are_equal_whatever_they_measured(steps: list[float]) -> None:
    seconds = token_seconds({str(place): measured(tokens) for place, tokens in enumerate(steps)})
    assert max(seconds.values()) == pytest.approx(min(seconds.values()))


@given(st.lists(st.tuples(step_tokens, st.floats(1.0, 1.39)), min_size=1, max_size=8))
def test_contexts_of_unequal_length_make_no_replica_slow(steps: list[tuple[float, float]]) -> None:
    seconds = token_seconds({str(place): measured(*one) for place, one in enumerate(steps)})
    assert max(seconds.values()) == pytest.approx(min(seconds.values()))


@given(st.lists(st.floats(640, 1600), min_size=3, max_size=8), st.floats(640, 1600))
def test_one_that_is_slowed_four_times_is_seen_to_be_slow_and_the_others_are_not(
    steps: list[float], slow: float
) -> None:
    all_of = {str(place): measured(tokens) for place, tokens in enumerate(steps)}
    seconds = token_seconds(all_of | {"slow": measured(slow, 4.0)})
    others = [seconds[name] for name in all_of]
    assert max(others) == pytest.approx(min(others))
    assert 1.0 < seconds["slow"] / max(others) <= 4.01


def test_at_like_load_a_slow_one_is_as_slow_as_it_is() -> None:
    two = token_seconds({"slow": measured(1000, 4.0), "quick": measured(1000)})
    assert two["slow"] / two["quick"] == pytest.approx(4.0)
    five = token_seconds({"slow": measured(1000, 4.0)} | {str(n): measured(1000) for n in range(4)})
    assert five["slow"] / five["0"] == pytest.approx(4.0)


def test_two_kinds_of_hardware_are_told_apart() -> None:
    kinds = {f"old{n}": measured(2000, 3.0) for n in range(4)} | {f"new{n}": measured(2000) for n in range(4)}
    seconds = token_seconds(kinds)
    assert seconds["old1"] / seconds["new1"] == pytest.approx(3.0)


def test_nothing_measured_says_nothing() -> None:
    assert token_seconds({}) == {}
