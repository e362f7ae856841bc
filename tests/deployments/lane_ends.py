"""What does a test of the lane hold? Engines at the far end of its links, and everything that entered it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from deployments.frames import (
    VERSION,
    Call,
    Cancel,
    Delta,
    EngineFrame,
    Failure,
    Load,
    Part,
    Spent,
    Submit,
    Took,
    Waiting,
)
from deployments.lane import Lane
from deployments.openai_wire import ApiError
from deployments.replica import Replica
from deployments.sender import ANYBODY, Sender
from deployments.ticket import Ticket


@dataclass
class Engine:
    """An engine replica at the far end of a link: it sees what the lane says and answers in frames."""

    lane: Lane
    slots: int = 4
    tokens: int = 1000
    draining: bool = False
    name: str = "a"
    said: list[Submit | Call | Cancel | Took] = field(default_factory=list)
    running: dict[int, Submit | Call] = field(default_factory=dict)
    most: int = 0
    waiting: Waiting | None = None
    """What the lane announced last."""
    closed: bool = False

    def __post_init__(self) -> None:
        self.lane.join(Replica(self.name, {"max_model_len": 4096, "verified": True}), self._connect)

    def _connect(self, *, on_frame: Callable[[EngineFrame], None], on_lost: Callable[[str], None]) -> "Engine":
        self._on_frame, self._on_lost = on_frame, on_lost
        return self

    def say(self, message: Submit | Call | Cancel | Took) -> None:
        self.said.append(message)
        if isinstance(message, Submit | Call):
            self.running[message.request] = message
            self.most = max(self.most, len(self.running))
        elif isinstance(message, Cancel):
            self.running.pop(message.request, None)

    def announce(self, waiting: Waiting | None, *, now: bool) -> None:
        self.waiting = waiting

    def close(self) -> None:
        self.closed = True

    @property
    def submits(self) -> list[Submit]:
        return [message for message in self.said if isinstance(message, Submit)]

    @property
    def calls(self) -> list[Call]:
        return [message for message in self.said if isinstance(message, Call)]

    @property
    def numbers(self) -> list[int]:
        return [message.request for message in self.said if isinstance(message, Submit | Call)]

    async def frame(self, *said: Delta | Part | Spent, failures: list[Failure] | None = None) -> None:
        """Sends a frame, with what this engine can take now, and lets the lane act on it."""
        deltas = [answer for answer in said if isinstance(answer, Delta)]
        parts = [answer for answer in said if isinstance(answer, Part)]
        spent = [answer for answer in said if isinstance(answer, Spent)]
        ended = [delta.request for delta in deltas if delta.finish is not None]
        for request in ended + [part.request for part in parts if not part.more]:
            self.running.pop(request, None)
        load = Load(
            received=len(self.numbers),
            running_requests=len(self.running),
            slots=self.slots,
            credit_requests=self.slots - len(self.running),
            credit_tokens=max(self.tokens, self.waiting.tokens if self.waiting is not None else 0),
            prefill_step_tokens=100.0,
            prefill_tokens_per_s=100.0,
            draining=self.draining,
        )
        self._on_frame(EngineFrame(VERSION, 0, load, deltas, failures or [], False, parts, spent))
        await turn()

    async def die(self) -> None:
        self._on_lost("was killed")
        self.running.clear()
        await turn()


async def turn() -> None:
    """Lets the lane finish this turn of the event loop."""
    await asyncio.sleep(0)


def check(lane: Lane, tickets: list[Ticket]) -> None:
    """What must hold between any two turns."""
    waiting = [ticket for ticket in tickets if ticket.value.id in lane._waiting]
    assert lane.queued_requests == len(waiting) == len(lane._waiting) == len(lane._queue)
    assert {request.id for request in lane._queue} == set(lane._waiting)
    assert lane.queued_tokens == sum(ticket.value.prompt_tokens for ticket in waiting)
    running = [ticket for replica in lane.replicas.values() for ticket in replica.tickets.values()]
    assert lane.open_requests() == len(waiting) + len(running)
    assert not {id(ticket) for ticket in waiting} & {id(ticket) for ticket in running}
    for ticket in running:
        assert ticket.replica is not None
        assert lane.replicas[ticket.replica].tickets[ticket.value.id] is ticket
    for ticket in tickets:
        ended = ticket.gone or ticket.failure is not None or ticket.open_choices <= 0
        assert ended != (ticket in waiting or ticket in running)


@dataclass
class Door:
    """A lane with everything that ever entered it."""

    lane: Lane
    log: list[str]
    tickets: list[Ticket] = field(default_factory=list)

    def enter(
        self, tokens: int = 10, *, stream: bool = True, first: int = 0, sender: Sender = ANYBODY, **sampling: Any
    ) -> Ticket:
        ids, asked = [first] * tokens, {"max_tokens": 8} | sampling
        ticket = self.lane.enter(ids, asked, stream=stream, news=asyncio.Event(), sender=sender)
        self.tickets.append(ticket)
        return ticket

    def call(self, body: bytes = b"{}", tokens: int = 10) -> Ticket:
        ticket = self.lane.call("/v1/responses", [("accept", "*/*")], body, tokens)
        self.tickets.append(ticket)
        return ticket


def make_door(**limits: Any) -> Door:
    log: list[str] = []
    return Door(Lane("m", log=log.append, **{"max_queued_requests": 100} | limits), log)


def token(ticket: Ticket, text: str = "x", finish: str | None = None, index: int = 0) -> Delta:
    return Delta(ticket.value.id, ticket.attempt, index, text, [1], finish)


def part(ticket: Ticket, body: bytes = b"x", more: bool = True, **told: Any) -> Part:
    return Part(ticket.value.id, ticket.attempt, bytearray(body), more, **told)


def error(ticket: Ticket) -> ApiError:
    with pytest.raises(ApiError) as refused:
        ticket.take()
    return refused.value


def error_of_call(ticket: Ticket) -> ApiError:
    with pytest.raises(ApiError) as refused:
        ticket.take_part()
    return refused.value


def read(ticket: Ticket) -> str:
    return "".join(delta.text for delta in ticket.take())
