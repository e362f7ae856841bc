"""Does the tally count what came, in the seconds it speaks of, and forget the rest?"""

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
        tally.ended(now_s, 1, missed=missed)
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
        tally.ended(1, 10, missed=False)
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
    tally.ended(0, 40, missed=False)
    tally.ended(0, 0, missed=True)
    assert tally.traffic(0).output_tokens == 40
