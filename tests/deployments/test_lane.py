"""Does each request reach one replica in time, and does its reader get everything, once, or a clear error?"""

from typing import Any

import pytest

from deployments.frames import VERSION, Cancel, Delta, EngineFrame, Failure, Load, Submit
from deployments.lane import RETRIES
from deployments.openai_wire import ApiError
from tests.deployments.lane_ends import Door, Engine, check, error, make_door, read, token, turn

pytestmark = pytest.mark.anyio


async def test_requests_wait_here_until_an_engine_has_said_what_it_can_take(door: Door) -> None:
    tickets = [door.enter() for _ in range(6)]
    engine = Engine(door.lane, slots=4)
    await turn()
    assert not engine.said
    assert (door.lane.queued_requests, door.lane.queued_tokens, door.lane.ready()) == (6, 60, False)

    await engine.frame()
    assert engine.numbers == [ticket.value.id for ticket in tickets[:4]]
    assert (door.lane.queued_requests, door.lane.queued_tokens, door.lane.ready()) == (2, 20, True)

    await engine.frame(token(tickets[1], finish="stop"))
    assert engine.numbers[4:] == [tickets[4].value.id]


async def test_never_more_than_the_credit_is_on_the_way(door: Door) -> None:
    engine = Engine(door.lane, slots=2)
    await engine.frame()
    for _ in range(5):
        door.enter()
        await turn()
    assert len(engine.submits) == 2
    # A frame made before the engine had seen them grants the same two again: they are spent.
    engine._on_frame(EngineFrame(VERSION, 0, Load(received=0, credit_requests=2, credit_tokens=1000)))
    await turn()
    assert len(engine.submits) == 2
    engine._on_frame(EngineFrame(VERSION, 0, Load(received=1, credit_requests=2, credit_tokens=1000)))
    await turn()
    assert len(engine.submits) == 3


async def test_the_token_budget_counts_what_is_on_the_way_and_is_never_overdrawn(door: Door) -> None:
    engine = Engine(door.lane, slots=9, tokens=100)
    await engine.frame()
    for tokens in (60, 30, 20, 5):
        door.enter(tokens)
        await turn()
    assert [len(submit.prompt_ids) for submit in engine.submits] == [60, 30]
    await engine.frame()
    assert [len(submit.prompt_ids) for submit in engine.submits] == [60, 30, 20, 5]


async def test_a_request_goes_where_it_begins_soonest(door: Door) -> None:
    engines = [Engine(door.lane, name=name) for name in "ab"]
    for engine in engines:
        await engine.frame()
    for tokens in (300, 10, 10):
        door.enter(tokens)
        await turn()
    assert sorted(len(engine.submits) for engine in engines) == [1, 2]


async def test_a_submit_says_what_was_asked(door: Door) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    ticket = door.enter(3, first=5, temperature=0.5, stream=False)
    await turn()
    sampling = {"max_tokens": 8, "temperature": 0.5}
    assert engine.submits == [Submit(ticket.value.id, 0, [5, 5, 5], sampling, False, None, read_tokens=3)]


async def test_a_slow_reader_finds_its_deltas_merged_by_choice(door: Door) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    ticket = door.enter(n=2)
    await turn()
    for text in "abc":
        await engine.frame(token(ticket, text), token(ticket, text.upper(), index=1))
    assert [(delta.index, delta.text, delta.token_ids) for delta in ticket.take()] == [
        (0, "abc", [1, 1, 1]),
        (1, "ABC", [1, 1, 1]),
    ]
    assert list(ticket.take()) == []
    await engine.frame(token(ticket, "d", "stop"))
    assert ticket.unread
    await engine.frame(token(ticket, "D", "length", index=1))
    assert [delta.finish for delta in ticket.take()] == ["stop", "length"]
    assert not ticket.unread
    assert door.lane.open_requests() == 0
    assert door.lane.shares.output_tokens == 8


async def test_a_reader_that_leaves_the_queue_is_never_sent(door: Door) -> None:
    gone, stays = door.enter(30), door.enter(20)
    door.lane.leave(gone)
    assert door.lane.queued_tokens == 20
    engine = Engine(door.lane)
    await engine.frame()
    assert engine.numbers == [stays.value.id]


async def test_a_reader_that_leaves_a_running_request_cancels_it_once(door: Door) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    ticket = door.enter()
    await turn()
    door.lane.leave(ticket)
    door.lane.leave(ticket)
    assert engine.said[1:] == [Cancel(ticket.value.id)]
    await engine.frame(token(ticket, "late"))
    assert not ticket.pending, "nobody reads it any more"


async def test_leaving_after_the_end_says_nothing_to_the_engine(door: Door) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    ticket = door.enter()
    await turn()
    await engine.frame(token(ticket, finish="stop"))
    door.lane.leave(ticket)
    assert len(engine.said) == 1


async def test_requests_of_a_lost_replica_go_to_another_before_those_that_came_later(door: Door) -> None:
    first = Engine(door.lane, slots=2)
    await first.frame()
    tickets = [door.enter(seed=1) for _ in range(4)]
    await turn()
    await first.frame(token(tickets[1], "never read"))
    await first.die()
    assert door.log == ["m: replica a was killed; 2 requests were on it"]
    assert (door.lane.queued_requests, door.lane.retries) == (4, 2)

    second = Engine(door.lane, name="b")
    await second.frame()
    assert second.numbers == [ticket.value.id for ticket in tickets]
    assert [submit.attempt for submit in second.submits] == [1, 1, 0, 0]
    await second.frame(*[token(ticket, "all of it", "stop") for ticket in tickets])
    assert [read(ticket) for ticket in tickets] == ["all of it"] * 4


async def test_what_a_lost_replica_still_had_in_the_air_is_not_mixed_in(door: Door) -> None:
    first = Engine(door.lane)
    await first.frame()
    ticket = door.enter()
    await turn()
    late = token(ticket, "from the first")
    await first.die()
    second = Engine(door.lane, name="b")
    await second.frame()
    await second.frame(late)
    await second.frame(token(ticket, "from the second", "stop"))
    assert read(ticket) == "from the second"


async def test_a_stream_of_a_lost_replica_goes_on_at_another(door: Door) -> None:
    first = Engine(door.lane)
    await first.frame()
    ticket = door.enter(3, first=5)
    await turn()
    await first.frame(Delta(ticket.value.id, 0, 0, "se", [7, 8], cached_tokens=2))
    assert read(ticket) == "se"
    await first.frame(Delta(ticket.value.id, 0, 0, "en", [9], cached_tokens=2))
    await first.die()
    assert (door.lane.queued_tokens, door.lane.continuations, door.lane.retries) == (6, 1, 0)
    assert read(ticket) == "en", "what came is given"

    second = Engine(door.lane, name="b")
    await second.frame()
    assert second.submits == [
        Submit(
            ticket.value.id,
            1,
            [5, 5, 5],
            {"max_tokens": 8},
            True,
            None,
            read_tokens=6,
            said_ids=[7, 8, 9],
            sent_characters=4,
        )
    ]
    await second.frame(Delta(ticket.value.id, 1, 0, " all", [3], "stop", cached_tokens=6))
    (last,) = ticket.take()
    assert (last.text, last.token_ids, last.cached_tokens) == (" all", [3], 2)


async def test_a_stream_that_is_continued_twice_begins_after_all_that_came(door: Door) -> None:
    ticket = door.enter(1)
    for attempt in range(3):
        engine = Engine(door.lane, name=str(attempt))
        await engine.frame()
        (submit,) = engine.submits
        assert (submit.attempt, submit.said_ids, submit.sent_characters) == (attempt, [1] * attempt, attempt)
        await engine.frame(token(ticket, "x"))
        await engine.die()
    assert read(ticket) == "xxx"
    assert error(ticket).status == 503
    assert door.lane.continuations == 2


@pytest.mark.parametrize(
    "asked",
    [{"n": 2}, {"seed": 3}, {"seed": 3, "temperature": 0.7}, {"presence_penalty": 0.1}, {"frequency_penalty": -1.0}],
    ids=str,
)
async def test_a_stream_that_can_t_go_on_ends_with_an_error_after_what_came(door: Door, asked: dict[str, Any]) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    ticket = door.enter(**asked)
    await turn()
    await engine.frame(token(ticket, "seen"))
    assert read(ticket) == "seen"
    await engine.frame(token(ticket, "not yet"))
    await engine.die()
    assert read(ticket) == "not yet", "what came is given first"
    assert ticket.news.is_set()
    refused = error(ticket)
    assert (refused.status, refused.body["error"]["code"]) == (503, "engine_error")
    assert "was killed" in str(refused)
    assert door.lane.queued_requests == 0


@pytest.mark.parametrize(
    "asked", [{"seed": 3, "temperature": 0}, {"repetition_penalty": 1.3}, {"presence_penalty": 0, "n": 1}], ids=str
)
async def test_a_stream_goes_on_where_only_ids_decide(door: Door, asked: dict[str, Any]) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    ticket = door.enter(**asked)
    await turn()
    await engine.frame(token(ticket, "seen"))
    await engine.die()
    assert door.lane.continuations == 1
    door.lane.leave(ticket)


async def test_a_fleet_may_have_no_stream_continued() -> None:
    door = make_door(continuations=0)
    engine = Engine(door.lane)
    await engine.frame()
    ticket = door.enter()
    await turn()
    await engine.frame(token(ticket, "seen"))
    assert read(ticket) == "seen"
    await engine.die()
    assert error(ticket).status == 503


async def test_a_stream_whose_last_token_came_needs_no_engine(door: Door) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    ticket = door.enter()
    await turn()
    await engine.frame(token(ticket, "all"))
    await engine.frame(token(ticket, " of it", "length"))
    await engine.die()
    assert door.log == ["m: replica a was killed; 0 requests were on it"]
    assert read(ticket) == "all of it"
    assert not ticket.unread


async def test_a_whole_answer_hides_a_lost_replica_even_after_some_of_its_choices_ended(door: Door) -> None:
    first = Engine(door.lane)
    await first.frame()
    ticket = door.enter(n=2, stream=False)
    await turn()
    await first.frame(token(ticket, "lost", "stop"))
    await first.die()
    second = Engine(door.lane, name="b")
    await second.frame()
    await second.frame(token(ticket, "B", "stop", index=1), token(ticket, "A", "stop", index=0))
    assert [choice.text for choice in ticket.whole()] == ["A", "B"]


async def test_a_request_is_not_carried_from_death_to_death_for_ever(door: Door) -> None:
    ticket = door.enter()
    for attempt in range(RETRIES + 1):
        engine = Engine(door.lane, name=str(attempt))
        await engine.frame()
        assert [submit.attempt for submit in engine.submits] == [attempt]
        await engine.frame()
        await engine.die()
    assert error(ticket).status == 503
    assert door.lane.open_requests() == 0


async def test_replicas_that_were_gone_before_a_request_reached_them_don_t_count(door: Door) -> None:
    """As when a machine with several dies, and they are found to be lost one after the other."""
    first = Engine(door.lane)
    await first.frame()
    ticket = door.enter(5)
    await turn()
    await first.frame(token(ticket, "x"))
    dying = first
    for number in range(2 * RETRIES):
        gone = Engine(door.lane, name=str(number))
        await gone.frame()
        await dying.die()
        assert gone.numbers == [ticket.value.id]
        dying = gone
    last = Engine(door.lane, name="last")
    await last.frame()
    await dying.die()
    (submit,) = last.submits
    assert (submit.attempt, submit.said_ids) == (2 * RETRIES + 1, [1])
    await last.frame(token(ticket, "y", "stop"))
    assert read(ticket) == "xy"


async def test_a_draining_replica_finishes_what_it_has_and_gets_nothing_new(door: Door) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    old = door.enter()
    await turn()
    engine.draining = True
    await engine.frame()
    new = door.enter()
    await turn()
    assert engine.numbers == [old.value.id]
    assert not door.lane.ready()
    await engine.frame(token(old, "done", "stop"))
    assert read(old) == "done"
    assert door.lane.queued_requests == 1
    other = Engine(door.lane, name="b")
    await other.frame()
    assert other.numbers == [new.value.id]


async def test_what_an_engine_refuses_is_told_as_the_client_s_fault(door: Door) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    ticket = door.enter()
    await turn()
    await engine.frame(failures=[Failure(ticket.value.id, 0, 400, "top_p is too high", "top_p")])
    refused = error(ticket)
    assert refused.status == 400
    assert refused.body["error"] == {
        "message": "top_p is too high",
        "type": "invalid_request_error",
        "param": "top_p",
        "code": None,
    }


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    door = make_door(max_queued_requests=3)
    engine = Engine(door.lane, slots=1)
    await engine.frame()
    door.enter(100)
    await turn()
    for _ in range(3):
        door.enter(100)
    with pytest.raises(ApiError) as refused:
        door.enter(100)
    assert refused.value.status == 503
    assert refused.value.body["error"]["code"] == "overloaded"
    # One left in the last second.
    assert refused.value.headers == {"retry-after": "1"}
    await turn()
    check(door.lane, door.tickets)


async def test_closing_ends_every_link(door: Door) -> None:
    engines = [Engine(door.lane, name=name) for name in "ab"]
    door.lane.close()
    assert all(engine.closed for engine in engines)
