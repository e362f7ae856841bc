"""Does a batch go through OpenAI's states, and end once?"""

from hypothesis import given
from hypothesis import strategies as st

from deployments.batches.state import FOLLOWS, OPEN, Status, before, ending, may_follow


@given(st.lists(st.sampled_from(Status), max_size=30))
def test_whatever_is_tried_a_batch_that_has_ended_stays_so(tried: list[Status]) -> None:
    status, ended = Status.VALIDATING, []
    for successor in tried:
        if may_follow(status, successor):
            assert status in OPEN
            status = successor
            ended += [status] if status not in OPEN else []
    assert len(ended) <= 1
    assert not ended or status is ended[0]


def test_from_every_state_that_is_open_an_end_can_be_reached() -> None:
    for status in OPEN:
        seen, left = {status}, [status]
        while left:
            new = FOLLOWS.get(left.pop(), set()) - seen
            seen |= new
            left += new
        assert seen - OPEN


@given(st.sampled_from(sorted(OPEN)), st.integers(0, 5), st.floats(0, 10), st.floats(0, 10))
def test_a_batch_ends_as_it_may_from_where_it_is(status: Status, left: int, now_s: float, expires_s: float) -> None:
    end = ending(status, left=left, now_s=now_s, expires_s=expires_s)
    if end is None:
        assert left > 0
        assert now_s < expires_s
    elif status is not Status.VALIDATING:  # a run begins before it ends
        steps = {status} if end is not Status.COMPLETED else {status, Status.FINALIZING}
        assert any(may_follow(step, end) for step in steps)


def test_who_asks_to_cancel_gets_that_even_when_all_is_done_or_too_late() -> None:
    assert ending(Status.CANCELLING, left=0, now_s=2, expires_s=1) is Status.CANCELLED
    assert ending(Status.IN_PROGRESS, left=0, now_s=2, expires_s=1) is Status.COMPLETED
    assert ending(Status.IN_PROGRESS, left=1, now_s=1, expires_s=1) is Status.EXPIRED


def test_what_is_before_a_state_may_be_followed_by_it() -> None:
    assert before(Status.CANCELLING) == {Status.VALIDATING, Status.IN_PROGRESS}
    assert before(Status.VALIDATING) == frozenset()
