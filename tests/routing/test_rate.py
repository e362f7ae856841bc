"""Is a rate that of the steps that were taken lately, and no prediction too short?"""

from hypothesis import given
from hypothesis import strategies as st

from routing.rate import MEMORY_S, UNLIKE_S, Rate

steps = st.lists(st.tuples(st.integers(0, 10_000), st.floats(0.001, 30.0)), min_size=1, max_size=50)


def test_a_rate_is_unknown_until_something_was_measured() -> None:
    assert Rate().per_s() == 0.0


@given(steps)
def test_a_rate_lies_between_the_slowest_and_the_fastest_step(measured: list[tuple[int, float]]) -> None:
    rate = Rate()
    for tokens, seconds in measured:
        rate.add(tokens, seconds)
    each = [tokens / seconds for tokens, seconds in measured]
    assert min(each) * 0.999 - 1e-9 <= rate.per_s() <= max(each) * 1.001 + 1e-9


@given(st.floats(1.0, 1e4), st.floats(1.0, 1e4))
def test_a_rate_follows_a_change_within_a_few_memories(before: float, after: float) -> None:
    rate = Rate()
    for speed in (before, after):
        for _ in range(500):
            rate.add(int(speed * 10), 0.1)
    wanted = int(after * 10) / 0.1
    assert 5 * MEMORY_S <= 500 * 0.1
    assert abs(rate.per_s() - wanted) <= 0.01 * max(wanted, int(before * 10) / 0.1)


@given(
    st.floats(0.0, 1.0),
    st.floats(0.0, 0.01),
    st.lists(st.integers(1, 1000), min_size=1, max_size=50),
    st.integers(1, 1000),
)
def test_an_engine_whose_steps_grow_with_their_tokens_never_takes_longer_than_predicted(
    each_s: float, token_s: float, measured: list[int], next_tokens: int
) -> None:
    rate = Rate()
    for tokens in measured:
        rate.add(tokens, each_s + token_s * tokens + 1e-9)
    takes_s = each_s + token_s * next_tokens
    assert rate.step_s(next_tokens) >= min(takes_s, UNLIKE_S) * 0.999


@given(steps, st.integers(1, 10_000))
def test_a_prediction_is_bounded_by_the_mean_step_and_by_what_a_step_unlike_any_other_gets(
    measured: list[tuple[int, float]], tokens: int
) -> None:
    rate = Rate()
    assert rate.step_s(tokens) == UNLIKE_S
    for made, seconds in measured:
        rate.add(made + 1, seconds)
    assert rate.step_s(tokens) <= max(UNLIKE_S, *(seconds for _, seconds in measured)) * 1.001
    assert rate.step_s(tokens) <= rate.step_s(tokens + 1)
