"""Is each answer to a batch's line taken for what it is: final, or worth asking again?"""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from deployments.batches.verdict import MOST_PAUSE_S, TRIES, again, failed_with_engine, tokens
from deployments.in_process import Answer


def verdict(status: int, retry_after: str | None = None, failures: int = 1, left_s: float = 1e5) -> Any:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return again(Answer(status, headers), failures=failures, left_s=left_s)


@given(st.integers(200, 499).filter(lambda status: status != 429), st.integers(0, 9))
def test_what_is_answered_or_the_line_s_own_fault_is_final(status: int, failures: int) -> None:
    assert verdict(status, failures=failures) is None


@given(st.integers(1, 4000), st.sampled_from([429, 503]))
def test_who_says_when_to_come_again_is_asked_then_and_the_batch_waits(seconds: int, status: int) -> None:
    told = verdict(status, str(seconds))
    assert (told.in_s, told.everything) == (min(seconds, MOST_PAUSE_S), True)


def test_what_limits_never_let_in_is_final() -> None:
    assert verdict(429) is None
    assert verdict(429, "3600", left_s=3000) is None
    assert verdict(429, "3600", left_s=4000) is not None


def test_a_line_whose_engine_fails_is_asked_a_few_times_ever_later() -> None:
    told = [verdict(503, failures=failures) for failures in range(1, TRIES)]
    assert [one.in_s for one in told] == [1, 2, 4, 8]
    assert not any(one.everything for one in told)
    assert verdict(500, failures=TRIES) is None
    assert failed_with_engine(Answer(500))
    assert not failed_with_engine(Answer(503, {"retry-after": "1"}))


def test_tokens_are_read_from_answers_of_each_endpoint() -> None:
    chat = b'{"usage":{"prompt_tokens":7,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":2}}}'
    response = b'{"usage":{"input_tokens":7,"output_tokens":5,"input_tokens_details":{"cached_tokens":2}}}'
    assert tokens(chat) == tokens(response) == (7, 2, 5)
    assert tokens(b'{"usage":{"prompt_tokens":7,"completion_tokens":null}}') == (7, 0, 0)
    for nothing in (b"{}", b'{"usage":null}', b"no json", b"[]", b'{"usage":3}'):
        assert tokens(nothing) == (0, 0, 0)
