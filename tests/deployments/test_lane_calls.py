"""Does a request for vLLM's application wait, run, end and get counted like a prompt?"""

import pytest

from deployments.frames import Call, Cancel, Failure, Took
from deployments.lane import TELL_BYTES
from tests.deployments.lane_ends import Door, Engine, error_of_call, part, turn

pytestmark = pytest.mark.anyio


async def test_calls_and_prompts_wait_in_one_queue_and_spend_the_same_credit(door: Door) -> None:
    tickets = [door.enter(), door.call(), door.enter(), door.call()]
    assert (door.lane.queued_requests, door.lane.queued_tokens) == (4, 40)
    engine = Engine(door.lane, slots=3)
    await engine.frame()
    assert engine.numbers == [ticket.value.id for ticket in tickets[:3]]
    await engine.frame(part(tickets[1], more=False))
    assert engine.numbers[3:] == [tickets[3].value.id]


async def test_a_call_says_what_was_asked(door: Door) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    ticket = door.call(b'{"a":1}', 7)
    await turn()
    assert engine.calls == [
        Call(ticket.value.id, 0, "POST", "/v1/responses", [("accept", "*/*")], b'{"a":1}', 7, read_tokens=7)
    ]


async def test_an_estimate_beyond_the_context_is_cut(door: Door) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    door.call(tokens=10**6)
    await turn()
    await engine.frame()
    assert engine.calls[0].prompt_tokens == 4096


async def test_parts_are_joined_until_they_are_read_and_keep_their_beginning(door: Door) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    ticket = door.call()
    await turn()
    await engine.frame(
        part(ticket, b"a", status=200, headers=[("content-type", "x")], prompt_tokens=3, output_tokens=1)
    )
    await engine.frame(part(ticket, b"b", output_tokens=1))
    first = ticket.take_part()
    assert first is not None
    assert (bytes(first.body), first.status, first.headers, first.output_tokens) == (
        b"ab",
        200,
        [("content-type", "x")],
        2,
    )
    assert ticket.take_part() is None
    await engine.frame(part(ticket, b"c", more=False))
    last = ticket.take_part()
    assert last is not None
    assert (bytes(last.body), last.more, ticket.unread) == (b"c", False, False)
    assert (door.lane.shares.prompt_tokens, door.lane.shares.output_tokens, door.lane.open_requests()) == (3, 2, 0)


async def test_tokens_of_a_call_whose_client_left_are_counted_too(door: Door) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    ticket = door.call()
    await turn()
    door.lane.leave(ticket)
    assert engine.said[1:] == [Cancel(ticket.value.id)]
    await engine.frame(part(ticket, more=False, prompt_tokens=5, output_tokens=2))
    assert (door.lane.shares.prompt_tokens, door.lane.shares.output_tokens) == (5, 2)
    assert ticket.part is None


async def test_a_call_of_a_lost_replica_goes_to_another_while_nothing_was_read(door: Door) -> None:
    first = Engine(door.lane)
    await first.frame()
    ticket = door.call()
    await turn()
    late = part(ticket, b"late", more=False)
    await first.frame(part(ticket, b"never read", status=200))
    await first.die()
    second = Engine(door.lane, name="b")
    await second.frame()
    assert [call.attempt for call in second.calls] == [1]
    await second.frame(late)
    await second.frame(part(ticket, b"read", more=False, status=200))
    read = ticket.take_part()
    assert read is not None
    assert (bytes(read.body), read.status) == (b"read", 200)


async def test_a_call_that_was_read_from_fails_with_its_replica(door: Door) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    ticket = door.call()
    await turn()
    await engine.frame(part(ticket, b"seen", status=200))
    assert ticket.take_part() is not None
    await engine.die()
    assert error_of_call(ticket).status == 503
    assert door.lane.queued_requests == 0


async def test_a_failure_is_told(door: Door) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    ticket = door.call()
    await turn()
    await engine.frame(failures=[Failure(ticket.value.id, 0, 500, "no answer")])
    assert error_of_call(ticket).status == 500


async def test_what_was_read_of_an_answer_is_told_in_lumps(door: Door) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    ticket = door.call()
    await turn()
    read, told = 0, []
    for size_bytes in [10] * 100 + [TELL_BYTES - 999, 1, 5 * TELL_BYTES]:
        door.lane.took(ticket, size_bytes)
        read += size_bytes
        told = [message.size_bytes for message in engine.said if isinstance(message, Took)]
        assert 0 <= read - sum(told) < TELL_BYTES
    assert len(told) == 2, "not each event of a stream"


async def test_of_an_answer_that_has_come_whole_nothing_is_told(door: Door) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    ticket = door.call()
    await turn()
    await engine.frame(part(ticket, more=False))
    door.lane.took(ticket, TELL_BYTES)
    other = door.call()
    door.lane.leave(other)
    door.lane.took(other, TELL_BYTES)
    assert not any(isinstance(message, Took) for message in engine.said)
