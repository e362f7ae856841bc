"""Does the tally count what came, in the seconds it speaks of, and forget the rest?"""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling import Tally
from autoscaling.traffic import LONG_S, SHORT_S


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 5_000), st.booleans()), max_size=60), st.floats(0, 100))
def test_counts_are_those_of_the_last_whole_seconds(past: list[tuple[float, int, bool]], pause_s: float) -> None:
    tally, now_s, came = Tally(), 0.0, []
    for after_s, tokens, missed in past:
        now_s += after_s
        came.append((int(now_s), tokens, missed))
        tally.arrived(now_s, tokens)
        tally.ended(now_s, whole=True, missed=missed)
    now_s += pause_s
    traffic = tally.traffic(now_s)
    recent = [one for one in came if one[0] > int(now_s) - SHORT_S]
    assert traffic.short_requests == traffic.judged_requests == len(recent)
    assert traffic.short_tokens == sum(tokens for _, tokens, _ in recent)
    assert traffic.missed_requests == sum(missed for _, _, missed in recent)
    assert traffic.long_tokens == sum(tokens for second, tokens, _ in came if second > int(now_s) - LONG_S)


def test_the_shape_outlives_a_pause_and_follows_a_change() -> None:
    tally = Tally()
    assert tally.traffic(0).prompt_tokens == 0
    for _ in range(100):
        tally.arrived(1, 100)
        tally.made(10)
        tally.ended(1, whole=True, missed=False)
    night = tally.traffic(100_000)
    assert (night.prompt_tokens, night.prompt_spread, night.output_tokens) == (
        pytest.approx(100),
        pytest.approx(0, abs=1e-9),
        10,
    )
    assert night.long_requests == 0
    for _ in range(1_000):
        tally.arrived(100_001, 1_000)
        tally.arrived(100_001, 3_000)
    assert tally.traffic(100_002).prompt_tokens == pytest.approx(2_000, rel=0.05)
    assert tally.traffic(100_002).prompt_spread == pytest.approx(0.25, rel=0.05)


def test_a_failed_request_says_nothing_of_answers() -> None:
    tally = Tally()
    for tokens, whole in ((40, True), (7, False)):
        tally.arrived(0, 100)
        tally.made(tokens)
        if not whole:
            tally.broke_off(tokens)
        tally.ended(0, whole=whole, missed=not whole)
    assert tally.traffic(0).output_tokens == 40


def test_lengths_are_not_those_of_the_short_answers_that_end_first_while_load_rises() -> None:
    """Ten answers a second begin, of 400 tokens in the mean by chance, and get twenty a second each."""
    source, tally = random.Random(1), Tally()
    running: list[int] = []
    ended: list[int] = []
    for second in range(10):
        for _ in range(10):
            tally.arrived(second, 100)
            running.append(max(1, round(source.expovariate(1 / 400))))
        for place, left in enumerate(running):
            made = min(20, left)
            tally.made(made)
            running[place] = left - made
            if left == made:
                tally.ended(second, whole=True, missed=False)
                ended.append(second)
        running = [left for left in running if left]
    assert len(ended) < 40
    assert tally.traffic(10).output_tokens == pytest.approx(400, rel=0.25)


def test_a_burst_does_not_make_answers_longer() -> None:
    """Four times as many come for some seconds; all have 200 tokens and get 20 a second."""
    tally, running = Tally(), list[int]()
    seen = []
    for second in range(200):
        for _ in range(80 if 100 <= second < 110 else 20):
            tally.arrived(second, 100)
            running.append(200)
        tally.made(20 * len(running))
        running = [left - 20 for left in running]
        for _ in range(running.count(0)):
            tally.ended(second, whole=True, missed=False)
        running = [left for left in running if left]
        if second > 90:
            seen.append(tally.traffic(second).output_tokens)
    assert 150 < min(seen) <= max(seen) < 300


@given(st.integers(1, 400), st.integers(1, 600))
def test_lengths_are_the_mean_where_all_have_ended(tokens: int, answers: int) -> None:
    tally = Tally()
    for _ in range(answers):
        tally.arrived(0, 100)
    for _ in range(answers):
        tally.made(tokens)
        tally.ended(0, whole=True, missed=False)
    assert tally.traffic(0).output_tokens == pytest.approx(tokens, rel=1e-6)


def test_one_answer_that_goes_on_is_as_long_as_it_is_so_far_and_many_are_longer() -> None:
    alone, together = Tally(), Tally()
    for tally, count in ((alone, 1), (together, 50)):
        for _ in range(count):
            tally.arrived(0, 100)
        tally.made(20 * count)
    assert alone.traffic(0).output_tokens == 20
    assert together.traffic(0).output_tokens == 20 * 50 / 5
