"""Is tier batch read later than who comes soon after it, and before who comes much later?"""

from hypothesis import given
from hypothesis import strategies as st

from routing import Tier, reading_order
from routing.reading_order import BATCH_BEHIND_S

TIMES = st.floats(0, 1e7)


@given(TIMES, TIMES, st.sampled_from(Tier))
def test_within_a_tier_who_came_first_is_read_first(one_s: float, other_s: float, tier: Tier) -> None:
    first_s, last_s = sorted((one_s, other_s))
    assert reading_order(tier, first_s) <= reading_order(tier, last_s)


@given(TIMES, st.floats(0, 10), st.sampled_from([Tier.INTERACTIVE, Tier.STANDARD]))
def test_a_batch_is_overtaken_for_a_second_and_no_longer(came_s: float, later_s: float, tier: Tier) -> None:
    overtaken = reading_order(tier, came_s + later_s) < reading_order(Tier.BATCH, came_s)
    if later_s < BATCH_BEHIND_S - 0.01:
        assert overtaken
    if later_s > BATCH_BEHIND_S:
        assert not overtaken


def test_users_of_both_tiers_are_read_as_they_came() -> None:
    assert reading_order(Tier.STANDARD, 5.0) < reading_order(Tier.INTERACTIVE, 5.1)
