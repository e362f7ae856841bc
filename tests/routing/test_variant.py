"""The best variant while it is in time, a cheaper one under overload, and never one that is not good enough."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing import Ladder, Prefer, Variant, Why, Wish
from routing.variant import FORGET_S, FREE_SHARE, FULL_SHARE, LASTS_S

TTFT_S = 1.0
FULL_S, FREE_S = FULL_SHARE * TTFT_S, FREE_SHARE * TTFT_S
BEST = Variant(name="m", quality=1.0, serves=True)
W8 = Variant(name="w8", quality=0.97, serves=True)
W4 = Variant(name="w4", quality=0.9, serves=True)
COST = Wish(prefer=Prefer.COST)


def waiting(variant: Variant, wait_s: float) -> Variant:
    return replace(variant, wait_s=wait_s)


def absent(variant: Variant) -> Variant:
    return replace(variant, serves=False)


def chosen(ladder: Ladder, *variants: Variant, wish: Wish | None = None, now_s: float = 0.0) -> tuple[str, Why]:
    variant, why = ladder.choose(variants, wish or Wish(), now_s=now_s)
    return variant.name, why


def test_the_best_one_serves_while_it_is_in_time_wherever_it_stands() -> None:
    assert chosen(Ladder(TTFT_S), W4, waiting(BEST, FULL_S), W8) == ("m", Why.BEST)


def test_under_overload_the_best_of_those_in_time_serves() -> None:
    ladder = Ladder(TTFT_S)
    assert chosen(ladder, waiting(BEST, 1.0), W8, W4) == ("w8", Why.OVERLOAD)
    assert chosen(ladder, waiting(BEST, 1.0), waiting(W8, 0.8), W4) == ("w4", Why.OVERLOAD)


def test_when_all_are_overloaded_the_shortest_wait_counts() -> None:
    ladder = Ladder(TTFT_S)
    assert chosen(ladder, waiting(BEST, 3.0), waiting(W8, 2.0), waiting(W4, 2.5))[0] == "w8"
    assert chosen(ladder, waiting(BEST, 2.0), waiting(W8, 2.0), waiting(W4, 2.0))[0] == "m", "of equal ones the best"


def test_a_wait_between_the_thresholds_changes_nothing() -> None:
    ladder, between = Ladder(TTFT_S), (FULL_S + FREE_S) / 2
    for wait_s, name in ((between, "m"), (FULL_S + 0.01, "w4"), (between, "w4"), (FREE_S - 0.01, "m"), (between, "m")):
        assert chosen(ladder, waiting(BEST, wait_s), W4)[0] == name


def test_one_senders_overload_is_not_anothers() -> None:
    ladder = Ladder(TTFT_S)
    assert chosen(ladder, waiting(BEST, 9.0), W4, wish=Wish(sender="much"))[0] == "w4"
    assert chosen(ladder, waiting(BEST, 0.5), W4, wish=Wish(sender="little"))[0] == "m"


def test_who_prefers_cost_gets_the_cheapest_that_is_allowed_however_long_that_takes() -> None:
    ladder = Ladder(TTFT_S)
    assert chosen(ladder, BEST, W8, waiting(W4, 60.0), wish=COST) == ("w4", Why.COST)
    assert chosen(ladder, BEST, W8, W4, wish=replace(COST, min_quality=0.95)) == ("w8", Why.COST)
    assert chosen(ladder, BEST, absent(W8), absent(W4), wish=COST) == ("m", Why.COST)


def test_where_none_that_is_allowed_serves_the_best_of_them_is_waited_for() -> None:
    ladder = Ladder(TTFT_S)
    assert chosen(ladder, absent(BEST), absent(W4)) == ("m", Why.ABSENT)
    assert chosen(ladder, absent(BEST), absent(W8), W4, wish=replace(COST, min_quality=0.95)) == ("m", Why.ABSENT)
    assert chosen(ladder, absent(BEST), W4) == ("w4", Why.ABSENT), "one that serves is better than to wait"


def test_a_quality_that_no_variant_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no variant has quality 0\.95"):
        Ladder(TTFT_S).choose([W4], Wish(min_quality=0.95), now_s=0.0)


def test_a_conversation_stays_where_it_began() -> None:
    ladder, wish = Ladder(TTFT_S), Wish(conversation=1)
    assert chosen(ladder, waiting(BEST, 1.0), W4, wish=wish) == ("w4", Why.OVERLOAD)
    assert chosen(ladder, BEST, W4, wish=wish, now_s=30.0) == ("w4", Why.STAYS)
    assert chosen(ladder, BEST, W4, wish=Wish(conversation=2), now_s=30.0) == ("m", Why.BEST)
    assert chosen(ladder, BEST, W4, wish=Wish(), now_s=30.0) == ("m", Why.BEST)


def test_a_conversation_leaves_when_overload_lasts_and_another_is_in_time() -> None:
    ladder, wish, full = Ladder(TTFT_S), Wish(conversation=1), waiting(BEST, 1.0)
    assert chosen(ladder, BEST, W4, wish=wish)[0] == "m"
    assert chosen(ladder, full, W4, wish=wish, now_s=1.0) == ("m", Why.STAYS)
    assert chosen(ladder, full, waiting(W4, 1.0), wish=wish, now_s=1.0 + LASTS_S) == ("m", Why.STAYS)
    assert chosen(ladder, full, W4, wish=wish, now_s=1.0 + LASTS_S) == ("w4", Why.OVERLOAD)
    assert chosen(ladder, full, W4, wish=wish, now_s=2.0 + LASTS_S) == ("w4", Why.STAYS)


def test_a_conversation_leaves_a_variant_that_is_gone_or_forbidden() -> None:
    ladder, wish = Ladder(TTFT_S), Wish(conversation=1, prefer=Prefer.COST)
    assert chosen(ladder, BEST, W8, W4, wish=wish)[0] == "w4"
    assert chosen(ladder, BEST, W8, absent(W4), wish=wish)[0] == "w8"
    assert chosen(ladder, BEST, W8, W4, wish=wish)[0] == "w8"
    assert chosen(ladder, BEST, W8, W4, wish=replace(wish, min_quality=0.99))[0] == "m"


def test_a_conversation_that_was_long_silent_or_is_one_of_too_many_begins_anew() -> None:
    ladder, full = Ladder(TTFT_S, most_conversations=2), waiting(BEST, 1.0)
    for number in range(3):
        chosen(ladder, full, W4, wish=Wish(conversation=number))
    assert chosen(ladder, BEST, W4, wish=Wish(conversation=0))[0] == "m", "forgotten: the memory is bounded"
    assert chosen(ladder, BEST, W4, wish=Wish(conversation=2), now_s=FORGET_S)[0] == "w4"
    assert chosen(ladder, BEST, W4, wish=Wish(conversation=2), now_s=3 * FORGET_S)[0] == "m"


QUALITY = st.sampled_from([0.0, 0.5, 0.8, 0.9, 1.0])
OTHERS = st.lists(
    st.builds(
        Variant,
        name=st.sampled_from("abc"),
        quality=QUALITY.filter(bool),
        serves=st.booleans(),
        wait_s=st.floats(0, 10),
    ),
    max_size=3,
    unique_by=lambda one: one.name,
)
ITSELF = st.builds(Variant, name=st.just("m"), quality=st.just(1.0), serves=st.booleans(), wait_s=st.floats(0, 10))
WISHES = st.builds(
    Wish,
    prefer=st.sampled_from(Prefer),
    min_quality=QUALITY,
    conversation=st.sampled_from([None, 1, 2]),
    sender=st.sampled_from(["a", "b"]),
)
TURNS = st.lists(st.tuples(ITSELF, OTHERS, WISHES, st.floats(0, 20)), max_size=30)


@given(TURNS)
def test_quality_is_never_below_what_is_asked_whatever_came_before(
    turns: list[tuple[Variant, list[Variant], Wish, float]],
) -> None:
    ladder, now_s = Ladder(TTFT_S, most_conversations=3), 0.0
    for itself, others, wish, later_s in turns:
        now_s += later_s
        variants = [*others, itself]
        variant, _ = ladder.choose(variants, wish, now_s=now_s)
        assert variant.quality >= wish.min_quality
        assert variant in variants
        allowed = [one for one in variants if one.quality >= wish.min_quality]
        assert variant.serves or not any(one.serves for one in allowed)
        assert len(ladder._stays) <= 3


@given(st.lists(st.tuples(st.floats(0, 0.99 * LASTS_S / 20), st.floats(0, 3), st.floats(0, 3)), max_size=20))
def test_while_overload_is_short_a_conversation_has_one_variant(turns: list[tuple[float, float, float]]) -> None:
    ladder, now_s, seen = Ladder(TTFT_S), 0.0, Counter[str]()
    for later_s, best_s, cheap_s in turns:
        now_s += later_s
        seen[
            chosen(ladder, waiting(BEST, best_s), waiting(W4, cheap_s), wish=Wish(conversation=1), now_s=now_s)[0]
        ] += 1
    assert len(seen) <= 1
