"""Is a tenant charged once for what it was served, whatever became of replicas meanwhile?"""

from typing import Any

import pytest

from deployments.sender import Sender
from tests.deployments.lane_ends import Door, Engine, part, token, turn

pytestmark = pytest.mark.anyio
ALPHA = Sender(tenant="alpha")


def charged(door: Door) -> float:
    """What counts as served, but for what is to be taken off later charges: it is taken off here."""
    counters = door.lane._queue.counters
    counters.charge("alpha", 1000)
    return counters.of("alpha") - 1000


async def lose(door: Door) -> Engine:
    """The replica that runs everything is lost; another one takes it."""
    for replica in list(door.lane.replicas.values()):
        assert isinstance(replica.link, Engine)
        await replica.link.die()
    other = Engine(door.lane, name="other")
    await other.frame()
    return other


@pytest.mark.parametrize(
    ("asked", "said_again"),
    [({"stream": True}, 0), ({"stream": False}, 2), ({"stream": False, "n": 2}, 2)],
    ids=["a stream that goes on", "an answer that begins again", "choices that begin again"],
)
async def test_a_prompt_and_each_token_of_the_answer_are_charged_once(
    door: Door, asked: dict[str, Any], said_again: int
) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    ticket = door.enter(10, sender=ALPHA, **asked)
    await turn()
    await engine.frame(token(ticket))
    await engine.frame(token(ticket))
    other = await lose(door)
    assert other.numbers == [ticket.value.id]
    for _ in range(said_again):
        await other.frame(token(ticket))
    for index in range(asked.get("n", 1)):
        await other.frame(token(ticket, finish="stop", index=index))
    assert charged(door) == 10 + 2 + asked.get("n", 1)


@pytest.mark.parametrize("told", [0, 7], ids=["before it was counted", "after it was counted"])
async def test_a_call_is_charged_for_what_the_engine_that_answers_it_counts(door: Door, told: int) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    ticket = door.lane.call("/v1/responses", [], b"{}", 10, ALPHA)
    door.tickets.append(ticket)
    await turn()
    if told:
        await engine.frame(part(ticket, prompt_tokens=told, output_tokens=3))
    other = await lose(door)
    assert other.numbers == [ticket.value.id]
    await other.frame(part(ticket, more=False, prompt_tokens=7, output_tokens=4))
    assert charged(door) == 7 + 4


async def test_a_call_whose_client_left_is_charged_for_what_it_took(door: Door) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    ticket = door.lane.call("/v1/responses", [], b"{}", 10, ALPHA)
    await turn()
    door.lane.leave(ticket)
    await engine.frame(part(ticket, prompt_tokens=7, output_tokens=3))
    await engine.frame(part(ticket, more=False, output_tokens=4))
    assert charged(door) == 7 + 3 + 4
    share = door.lane.shares.by_sender["alpha", ALPHA.tier]
    assert (share.prompt_tokens, share.output_tokens) == (7, 7)
    (replica,) = door.lane.replicas.values()
    assert not replica.left


async def test_who_loses_a_replica_is_not_behind_those_who_lose_none(door: Door) -> None:
    engine = Engine(door.lane, slots=1)
    await engine.frame()
    lost = door.enter(100, sender=ALPHA)
    await turn()
    beta = [door.enter(60, sender=Sender(tenant="beta")) for _ in range(3)]
    more = door.enter(10, sender=ALPHA)
    await engine.die()
    other = Engine(door.lane, slots=1, name="other")
    await other.frame()
    by_number = {ticket.value.id: ticket for ticket in door.tickets}
    for _ in range(4):
        await other.frame(token(by_number[other.numbers[-1]], finish="stop"))
    # Beta is served 120 tokens, then alpha is behind with its 100, of which none is counted again.
    order = [by_number[number] for number in other.numbers]
    assert order == [beta[0], beta[1], lost, more, beta[2]]
