"""Are costs found in steps as they were, and never below nothing?"""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling import StepCosts, StepFit


def test_nothing_is_known_before_the_first_step() -> None:
    assert StepFit().costs() is None


@given(st.floats(1e-4, 0.05), st.floats(1e-6, 0.002), st.floats(1e-6, 1e-3), st.integers(0, 100))
def test_steps_that_were_made_by_the_formula_give_its_costs_back(
    step_s: float, sequence_s: float, prompt_token_s: float, seed: int
) -> None:
    source, fit = random.Random(seed), StepFit()
    for _ in range(60):
        sequences, prompt_tokens = source.randrange(1, 64), source.choice([0, 0, source.randrange(1, 2_000)])
        seconds = step_s + sequence_s * sequences + prompt_token_s * prompt_tokens
        fit.add(seconds, sequences=sequences, prompt_tokens=prompt_tokens)
    found = fit.costs()
    assert found is not None
    for sequences, prompt_tokens in ((1, 0), (32, 0), (10, 1_000)):
        right = step_s + sequence_s * sequences + prompt_token_s * prompt_tokens
        told = found.step_s + found.sequence_s * sequences + found.prompt_token_s * prompt_tokens
        assert told == pytest.approx(right, rel=0.02)


def test_steps_of_one_sequence_each_say_nothing_of_what_a_second_one_costs() -> None:
    fit = StepFit()
    for prompt_tokens in (100, 0, 0, 0, 300, 0, 0, 0):
        fit.add(0.03 + 1e-4 * prompt_tokens, sequences=1, prompt_tokens=prompt_tokens)
    found = fit.costs()
    assert found is not None
    assert found.step_s == pytest.approx(0.03, rel=0.02)
    assert found.sequence_s < 0.001
    assert found.prompt_token_s == pytest.approx(1e-4, rel=0.02)


def test_many_like_steps_told_at_once_count_as_told_one_by_one() -> None:
    single, together = StepFit(), StepFit()
    for sequences in (1, 5, 20):
        for _ in range(10):
            single.add(0.001 * (10 + sequences), sequences=sequences, prompt_tokens=0)
        together.add(0.01 * (10 + sequences), sequences=sequences, prompt_tokens=0, steps=10)
    one, other = single.costs(), together.costs()
    assert one is not None
    assert other is not None
    assert other.step_s == pytest.approx(one.step_s, rel=0.01)
    assert other.sequence_s == pytest.approx(one.sequence_s, rel=0.01)


steps = st.tuples(st.floats(1e-5, 20.0), st.integers(1, 300), st.integers(0, 8_192))


@given(st.lists(steps, min_size=1, max_size=40))
def test_whatever_steps_took_no_cost_is_below_nothing(seen: list[tuple[float, int, int]]) -> None:
    fit = StepFit()
    for seconds, sequences, prompt_tokens in seen:
        fit.add(seconds, sequences=sequences, prompt_tokens=prompt_tokens)
    found = fit.costs()
    assert found is not None
    assert min(found.step_s, found.sequence_s, found.prompt_token_s) >= 0


def test_an_engine_that_became_slower_is_known_to_be_after_a_while() -> None:
    fit = StepFit()
    for slowness in (1, 3):
        for number in range(60_000):
            fit.add(slowness * 0.001 * (10 + number % 20), sequences=number % 20, prompt_tokens=0)
    found = fit.costs()
    assert found is not None
    assert found.step_s == pytest.approx(0.03, rel=0.1)


@pytest.mark.parametrize("step_s", [-0.1, float("nan"), float("inf"), 0.0])
def test_costs_that_make_no_sense_are_refused(step_s: float) -> None:
    with pytest.raises(ValueError, match="cost"):
        StepCosts(step_s=step_s, sequence_s=0.0, prompt_token_s=0.0)
