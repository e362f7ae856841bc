"""Does a replica that fails requests get none for a while, then one, then all of them again?"""

from dataclasses import replace
from time import monotonic

import pytest

from deployments.frames import Failure
from routing import Health
from routing.breaker import FAILURES, FIRST_REST_S
from tests.deployments.lane_ends import Door, Engine, part, token, turn

pytestmark = pytest.mark.anyio


async def two(door: Door) -> tuple[Engine, Engine]:
    engines = Engine(door.lane, name="a"), Engine(door.lane, name="b")
    for engine in engines:
        await engine.frame()
    return engines


async def fail(door: Door, engine: Engine, status: int = 503) -> None:
    """Every request that it has."""
    failures = [Failure(number, message.attempt, status, "broken") for number, message in engine.running.items()]
    engine.running.clear()
    await engine.frame(failures=failures)


async def bad(door: Door, engine: Engine, other: Engine) -> None:
    """Until it rests."""
    while door.lane.replicas[engine.name].health.until_s is None:
        ticket = door.enter()
        await turn()
        await fail(door, engine)
        if ticket.value.id in other.running:
            await other.frame(token(ticket, finish="stop"))


def end_rest(door: Door, name: str) -> None:
    replica = door.lane.replicas[name]
    replica.health = replace(replica.health, until_s=monotonic())


async def test_a_replica_that_fails_requests_gets_none_then_one_then_all(door: Door) -> None:
    a, b = await two(door)
    await bad(door, a, b)
    assert door.log == [f"m: replica a gets no requests for {FIRST_REST_S:g} s"]
    failed = len(a.numbers)
    assert failed == FAILURES
    tickets = [door.enter() for _ in range(6)]
    await turn()
    assert (len(a.numbers), door.lane.queued_requests) == (failed, 2), "they rather wait for b"

    end_rest(door, "a")
    await a.frame()
    await a.frame()
    assert len(a.numbers) == failed + 1, "one on trial"
    trial = next(ticket for ticket in tickets if ticket.value.id == a.numbers[-1])
    await a.frame(token(trial))
    assert len(a.numbers) == failed + 2, "all that are there"
    for engine in (a, b):
        await engine.frame(*[token(ticket, finish="stop") for ticket in tickets if ticket.value.id in engine.running])


async def test_a_trial_whose_client_leaves_is_followed_by_another(door: Door) -> None:
    a, b = await two(door)
    await bad(door, a, b)
    end_rest(door, "a")
    tickets = [door.enter() for _ in range(7)]
    await turn()
    trial = next(ticket for ticket in tickets if ticket.value.id == a.numbers[-1])
    before = len(a.numbers)
    door.lane.leave(trial)
    await a.frame()
    assert len(a.numbers) == before + 1
    for ticket in tickets:
        door.lane.leave(ticket)


async def test_where_all_fail_all_go_on(door: Door) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    for number in range(3 * FAILURES):
        door.enter()
        await turn()
        await fail(door, engine)
        assert len(engine.numbers) == number + 1
    assert door.lane.replicas["a"].health.until_s is not None


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_what_is_the_client_s_fault_is_no_failure(door: Door, status: int) -> None:
    engines = await two(door)
    for _ in range(4 * FAILURES):
        door.enter()
        await turn()
        for engine in engines:
            await fail(door, engine, status)
    assert door.lane.replicas["a"].health.until_s is None


async def test_calls_that_vllm_s_application_fails_count(door: Door) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    for _ in range(FAILURES):
        ticket = door.call()
        await turn()
        await engine.frame(part(ticket, b"{}", more=False, status=500))
    assert door.lane.replicas["a"].health.until_s is not None


async def test_a_replica_that_was_lost_and_is_found_again_is_tried_first(door: Door) -> None:
    a, b = await two(door)
    await a.die()
    again = Engine(door.lane, name="a")
    tickets = [door.enter() for _ in range(5)]
    await again.frame()
    assert (len(again.numbers), len(b.numbers)) == (0, 4)
    end_rest(door, "a")
    await again.frame()
    assert len(again.numbers) == 1
    for ticket in tickets:
        door.lane.leave(ticket)


async def test_of_lost_replicas_not_all_is_kept_for_ever(door: Door) -> None:
    for number in range(200):
        engine = Engine(door.lane, name=str(number))
        await engine.die()
    assert len(door.lane._seen._lost_health) < 100
    assert Engine(door.lane, name="new").lane.replicas["new"].health == Health()
