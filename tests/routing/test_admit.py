"""Is a request refused only when the queue is full, and with a Retry-After that follows the backlog?"""

from hypothesis import given
from hypothesis import strategies as st

from routing import Refusal, Request, admit

REQUEST = Request(id=1, prompt_tokens=100, max_output_tokens=16, arrived_s=0.0, prefix=0)
counts = st.integers(0, 10_000)
rates = st.floats(0, 1e9, allow_nan=False)


def refuse(*, queued_tokens: int, drain_tokens_per_s: float) -> Refusal:
    refusal = admit(
        REQUEST,
        queued_requests=8,
        queued_tokens=queued_tokens,
        drain_tokens_per_s=drain_tokens_per_s,
        max_queued_requests=8,
    )
    assert refusal is not None
    return refusal


@given(queued_requests=counts, limit=st.integers(1, 10_000), queued_tokens=counts, rate=rates)
def test_only_a_full_queue_refuses(queued_requests: int, limit: int, queued_tokens: int, rate: float):
    refusal = admit(
        REQUEST,
        queued_requests=queued_requests,
        queued_tokens=queued_tokens,
        drain_tokens_per_s=rate,
        max_queued_requests=limit,
    )
    assert (refusal is not None) == (queued_requests >= limit)


def test_a_full_queue_answers_503_and_names_its_length():
    refusal = refuse(queued_tokens=900, drain_tokens_per_s=100.0)
    assert refusal.status == 503
    assert "8 requests" in refusal.reason


def test_the_time_to_retry_is_when_the_backlog_and_this_prompt_are_gone():
    assert refuse(queued_tokens=900, drain_tokens_per_s=100.0).retry_after_s == 10
    assert refuse(queued_tokens=901, drain_tokens_per_s=100.0).retry_after_s == 11


def test_an_unknown_rate_says_a_minute_and_a_fast_one_a_second():
    assert refuse(queued_tokens=5_000, drain_tokens_per_s=0.0).retry_after_s == 60
    assert refuse(queued_tokens=5_000, drain_tokens_per_s=1e9).retry_after_s == 1


@given(queued_tokens=counts, more_tokens=counts, rate=rates)
def test_a_longer_backlog_never_means_an_earlier_retry(queued_tokens: int, more_tokens: int, rate: float):
    now = refuse(queued_tokens=queued_tokens, drain_tokens_per_s=rate).retry_after_s
    later = refuse(queued_tokens=queued_tokens + more_tokens, drain_tokens_per_s=rate).retry_after_s
    assert 1 <= now <= later <= 3600
