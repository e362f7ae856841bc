"""Do the right requests leave together: in order, prefixes side by side, nothing lost, nothing starved?"""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from routing import Request, batch
from routing.batch import LOOKAHEAD


def request(number: int, *, tokens: int = 10, prefix: int = 0) -> Request:
    return Request(id=number, prompt_tokens=tokens, max_output_tokens=16, arrived_s=float(number), prefix=prefix)


@st.composite
def queues(draw: st.DrawFn) -> list[Request]:
    shapes = draw(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 4)), max_size=40))
    return [request(number, tokens=tokens, prefix=prefix) for number, (tokens, prefix) in enumerate(shapes)]


slots = st.integers(0, 12)
budgets = st.integers(0, 500)


def numbers(requests: tuple[Request, ...]) -> list[int]:
    return [one.id for one in requests]


@given(waiting=queues(), slots=slots, tokens=budgets)
def test_slots_and_tokens_are_respected_but_for_a_large_head_alone(waiting: list[Request], slots: int, tokens: int):
    leaving = batch(waiting, slots=slots, tokens=tokens)
    assert len(leaving) <= slots
    assert sum(one.prompt_tokens for one in leaving) <= tokens or len(leaving) == 1


@given(waiting=queues(), slots=st.integers(1, 12), tokens=st.integers(1, 500))
def test_the_head_of_the_queue_always_leaves_first(waiting: list[Request], slots: int, tokens: int):
    assert batch(waiting, slots=slots, tokens=tokens)[:1] == tuple(waiting[:1])


@given(waiting=queues(), slots=st.integers(1, 12), tokens=st.integers(1, 500))
def test_repeated_batches_send_each_request_once(waiting: list[Request], slots: int, tokens: int):
    left, sent = list(waiting), list[Request]()
    while left:
        leaving = batch(left, slots=slots, tokens=tokens)
        sent += leaving
        left = [one for one in left if one not in leaving]
    assert sorted(numbers(tuple(sent))) == numbers(tuple(waiting))


@given(waiting=queues(), slots=slots, tokens=budgets)
def test_requests_of_one_prefix_keep_their_order_and_stay_together(waiting: list[Request], slots: int, tokens: int):
    leaving = batch(waiting, slots=slots, tokens=tokens)
    groups = [(key, list(group)) for key, group in itertools.groupby(leaving, lambda one: one.prefix)]
    shared = [key for key, _ in groups if key]
    assert len(shared) == len(set(shared))
    for _, group in groups:
        assert numbers(tuple(group)) == sorted(numbers(tuple(group)))


@given(waiting=queues(), slots=slots, tokens=budgets)
def test_only_a_request_that_shares_a_prefix_with_an_earlier_one_overtakes(
    waiting: list[Request], slots: int, tokens: int
):
    leaving = batch(waiting, slots=slots, tokens=tokens)
    for position, one in enumerate(leaving):
        passed = [other for other in waiting[: one.id] if other not in leaving[:position]]
        if passed:
            assert one.prefix
            assert any(one.prefix == leader.prefix and leader.id < passed[0].id for leader in leaving[:position])


@given(waiting=queues(), slots=slots, tokens=budgets)
def test_no_prefix_jumps_further_than_the_lookahead(waiting: list[Request], slots: int, tokens: int):
    assert all(one.id < LOOKAHEAD * slots for one in batch(waiting, slots=slots, tokens=tokens))


def test_a_shared_prefix_is_pulled_forward():
    waiting = [request(0, prefix=7), request(1), request(2, prefix=7), request(3)]
    assert numbers(batch(waiting, slots=4, tokens=100)) == [0, 2, 1, 3]


def test_a_prompt_larger_than_the_budget_leaves_alone_and_stops_nothing_behind_it_for_ever():
    waiting = [request(0, tokens=5_000), request(1)]
    assert numbers(batch(waiting, slots=4, tokens=100)) == [0]
    assert numbers(batch(waiting[1:], slots=4, tokens=100)) == [1]


def test_a_small_prompt_does_not_overtake_a_large_one():
    waiting = [request(0, tokens=60), request(1, tokens=60), request(2, tokens=10)]
    assert numbers(batch(waiting, slots=4, tokens=100)) == [0]
