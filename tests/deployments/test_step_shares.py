"""Is each step's time divided among the requests that were in it, by their tokens, and all of it?"""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.step_shares import StepShares


def made(request: str, tokens: int = 1) -> Any:
    """As vLLM's core says that a request got tokens."""
    return SimpleNamespace(request_id=request, new_token_ids=[0] * tokens, prefill_stats=None)


def begun(request: str, read: int) -> Any:
    """The same with its first, after so many tokens of its prompt were read."""
    stats = SimpleNamespace(num_computed_tokens=read)
    return SimpleNamespace(request_id=request, new_token_ids=[0], prefill_stats=stats)


def shares() -> StepShares:
    """Requests are named as their owners, and a digit for each choice."""
    return StepShares(lambda request: request.rstrip("0123456789"))


def test_a_step_is_divided_by_tokens() -> None:
    engine = shares()
    engine.step(1.0, [begun("a", 30)], 30)
    engine.step(1.0, [begun("b", 9), made("a")], 9)
    engine.step(1.0, [made("a"), made("b", 3)], 0)
    assert engine.take("a") == pytest.approx(1.0 + 0.1 + 0.25)
    assert engine.take("b") == pytest.approx(0.9 + 0.75)
    assert engine.take("a") == 0.0


def test_a_prompt_read_over_several_steps_pays_for_its_tokens_in_each() -> None:
    engine = shares()
    engine.step(1.0, [made("a")], 99)
    engine.step(1.0, [made("a")], 99)
    engine.step(1.0, [made("a"), begun("b", 198 + 49)], 49)
    assert engine.take("a") == pytest.approx(0.01 + 0.01 + 0.02)
    assert engine.take("b") == pytest.approx(0.99 + 0.99 + 0.98)


def test_where_the_engine_does_not_say_what_it_read_a_silent_step_is_the_next_ones() -> None:
    engine = shares()
    engine.step(1.0, [], None)
    engine.step(1.0, [begun("a", 10)], None)
    assert engine.take("a") == pytest.approx(2.0)
    engine.step(1.0, [], None)
    engine.idle()
    engine.step(1.0, [begun("b", 10)], None)
    assert engine.take("b") == pytest.approx(1.0)


def test_choices_of_one_request_are_its_own_together() -> None:
    engine = shares()
    engine.step(1.0, [begun("a0", 5), begun("a1", 5)], 10)
    engine.step(1.0, [made("a0"), made("a1")], 0)
    assert engine.take("a") == pytest.approx(2.0)
    assert engine.remembered == 0


def test_who_leaves_before_its_first_token_pays_for_what_was_read() -> None:
    engine = shares()
    engine.step(1.0, [made("a")], 99)
    assert engine.take("gone", unread_tokens=500) == pytest.approx(0.99)
    assert engine.take("other", unread_tokens=500) == 0.0


def test_nobody_s_time_is_given_to_nobody_and_forgotten_owners_take_no_room() -> None:
    engine = StepShares(lambda request: None if request == "gone" else request)
    engine.step(1.0, [made("gone"), made("a")], 0)
    assert engine.take("a") == pytest.approx(0.5)
    for number in range(5):
        engine.step(1.0, [made(f"check-{number}")], 0)
    engine.step(1.0, [made("b")], 0)
    engine.forget({"b"})
    assert engine.remembered == 1
    assert engine.take("b") == pytest.approx(1.0)


names = st.sampled_from("abcdef")
steps = st.lists(
    st.tuples(st.floats(0.001, 10.0), st.lists(st.tuples(names, st.integers(1, 8)), max_size=6), st.integers(0, 500)),
    min_size=1,
)


@given(steps)
def test_all_together_have_what_the_steps_took(steps: list[tuple[float, list[tuple[str, int]], int]]) -> None:
    """Prompts are read in chunks, and each is claimed whole by a last step."""
    engine, took_s, read = shares(), 0.0, 0
    for seconds, outputs, chunk in steps:
        engine.step(seconds, [made(name, tokens) for name, tokens in outputs], chunk)
        took_s, read = took_s + seconds, read + chunk
    engine.step(1.0, [begun("z", read + 1)], 1)
    assert sum(map(engine.take, "abcdefz")) == pytest.approx(took_s + 1.0)
