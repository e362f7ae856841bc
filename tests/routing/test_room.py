"""How much may be sent to an engine in advance?"""

from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from routing import credit_requests, credit_tokens, room_tokens
from routing.grant import AHEAD_S, KV_RESERVE, LEAST_TOKENS, OWN_TIMES


def test_a_room_is_what_is_read_in_a_moment_but_two_steps_at_most() -> None:
    assert room_tokens(8192, prompt_token_s=AHEAD_S / 1000, own_s=0.0) == 1000
    assert room_tokens(400, prompt_token_s=AHEAD_S / 1000, own_s=0.0) == 800
    assert room_tokens(8192, prompt_token_s=1.0, own_s=0.0) == LEAST_TOKENS
    assert room_tokens(8192, prompt_token_s=0.0, own_s=0.1) == 2 * 8192, "nothing was measured"


@given(st.integers(1, 20_000), st.floats(1e-7, 1), st.floats(0, 1), st.integers(1, 50_000))
def test_what_waits_is_read_in_few_steps_whatever_a_step_costs_by_itself(
    step_tokens: int, token_s: float, own_s: float, waiting_tokens: int
) -> None:
    room = room_tokens(step_tokens, prompt_token_s=token_s, own_s=own_s)
    steps = ceil(waiting_tokens / min(room, step_tokens))
    at_once = ceil(waiting_tokens / step_tokens)
    reading_s = waiting_tokens * token_s
    assert steps * own_s <= max(at_once, 1) * own_s + reading_s / OWN_TIMES + own_s


rooms, tokens = st.integers(1, 20_000), st.integers(0, 50_000)


@given(rooms, tokens, tokens, st.floats(0, 1))
def test_no_more_is_granted_than_there_is_room_and_an_engine_without_work_always_gets_some(
    room: int, unread: int, kv: int, free: float
) -> None:
    credit = credit_tokens(room, unread_tokens=unread, kv_tokens=kv, kv_free_tokens=int(free * kv))
    assert 0 <= credit <= max(0, room - unread)
    if not unread:
        assert credit == room
    elif kv:
        assert credit + unread <= max(unread, free * kv - KV_RESERVE * kv)


def test_an_engine_takes_a_request_for_each_slot_that_will_soon_be_free() -> None:
    assert credit_requests(16, unfinished=10, ends_per_s=0.0) == 6
    assert credit_requests(16, unfinished=16, ends_per_s=0.9 / AHEAD_S) == 0, "none within that time"
    assert credit_requests(16, unfinished=16, ends_per_s=1.5 / AHEAD_S) == 2
    assert credit_requests(16, unfinished=18, ends_per_s=1.5 / AHEAD_S) == 0
    assert credit_requests(16, unfinished=30, ends_per_s=0.0) == 0
