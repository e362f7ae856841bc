"""How does what an engine says become the answer to an HTTP request, streamed or whole?"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from deployments.bill import Bill
from deployments.frames import Part
from deployments.openai_answers import Answer, error_event
from deployments.openai_wire import ApiError
from deployments.router_metrics import Metered
from deployments.ticket import Ticket

Send = Callable[[dict[str, Any]], Awaitable[None]]

_EVENTS = "text/event-stream; charset=utf-8"
_EVENT_STREAM = ((b"content-type", _EVENTS.encode()), (b"cache-control", b"no-cache"))

Extra = Sequence[tuple[bytes, bytes]]
"""Headers of an answer beside those that say what it is."""


async def respond(
    send: Send,
    status: int,
    body: bytes,
    kind: bytes = b"application/json",
    extra: Extra = (),
) -> None:
    """Sends a whole response; `extra` are further headers."""
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *extra]
    await send(_start(status, headers))
    await send({"type": "http.response.body", "body": body})


async def stream(
    tickets: Sequence[Ticket],
    news: asyncio.Event,
    answer: Answer,
    send: Send,
    metered: Metered,
    bill: Bill,
    extra: Extra = (),
) -> None:
    """Writes events as deltas come; `news` is set whenever some have, or the client is gone.

    An error before the first event is raised as ApiError, a later one is an event.
    """
    opened, unread, outcome = False, True, "failed"
    try:
        while unread:
            await news.wait()
            news.clear()
            if tickets[0].gone:
                outcome = "cancelled"
                return
            events = _events(tickets, answer, metered)
            if not (unread := any(ticket.unread for ticket in tickets)):
                bill.settle()
            if events and not opened:
                await send(_start(200, [*_EVENT_STREAM, *extra]))
                opened = True
            if chunk := b"".join(events):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": answer.ending()})
        outcome = "ok"
    except ApiError as error:
        if not opened:
            raise
        await send({"type": "http.response.body", "body": error_event(error)})
    finally:
        bill.settle()
        metered.end(outcome)


async def whole(
    tickets: Sequence[Ticket],
    news: asyncio.Event,
    answer: Answer,
    send: Send,
    metered: Metered,
    bill: Bill,
    extra: Extra = (),
) -> None:
    """Answers once everything has come. Raises ApiError when the engine failed."""
    outcome = "failed"
    try:
        while _all_go_on(tickets):
            await news.wait()
            news.clear()
            if tickets[0].gone:
                outcome = "cancelled"
                return
        choices = [choice for ticket in tickets for choice in ticket.whole()]
        metered.tokens(sum(len(choice.token_ids) for choice in choices))
        outcome = "ok"
    finally:
        bill.settle()
        metered.end(outcome)
    await respond(send, 200, answer.whole(choices), extra=extra)


async def relay(
    ticket: Ticket,
    send: Send,
    metered: Metered,
    bill: Bill,
    took: Callable[[int], None],
    as_event: Callable[[ApiError], bytes],
    extra: Extra = (),
) -> int | None:
    """Passes an answer of vLLM's application on as its parts come; its status, None when the client left before.

    `took` is told the bytes that the client's connection had room for. An error before the first part is raised as
    ApiError, a later one is an event; where it can't be, the answer ends short of its length.
    """
    status, events, outcome = None, False, "failed"
    try:
        async for part in _parts(ticket):
            if part.output_tokens:
                metered.tokens(part.output_tokens)
            if status is None:
                status, events = part.status, ("content-type", _EVENTS) in part.headers
                await send(_start(part.status, [*_headers(part), *extra]))
            if not part.more:
                bill.settle()
            await send({"type": "http.response.body", "body": bytes(part.body), "more_body": part.more})
            took(len(part.body))
        outcome = "cancelled" if ticket.gone else "ok" if status is not None and status < 400 else "failed"
    except ApiError as error:
        if status is None:
            raise
        if events:  # what came before may have been cut within an event
            await send({"type": "http.response.body", "body": b"\n\n" + as_event(error)})
    finally:
        bill.settle()
        metered.end(outcome)
    return status


async def _parts(ticket: Ticket) -> AsyncIterator[Part]:
    """The parts of a call's answer, to its end or until its reader left. Raises ApiError when the call failed."""
    while ticket.unread:
        await ticket.news.wait()
        ticket.news.clear()
        if ticket.gone:
            return
        if (part := ticket.take_part()) is not None:
            yield part


def _headers(part: Part) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in part.headers]


def _start(status: int, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def _events(tickets: Sequence[Ticket], answer: Answer, metered: Metered) -> list[bytes]:
    """Everything that has come since the last time; nothing after a wake-up for a replica that was lost."""
    tokens, events = 0, []
    for position, ticket in enumerate(tickets):
        for delta in ticket.take():
            tokens += len(delta.token_ids)
            events.append(answer.events(position * answer.n + delta.index, delta))
    if tokens:
        metered.tokens(tokens)
    return events


def _all_go_on(tickets: Sequence[Ticket]) -> bool:
    """Whether none has failed and some choice is still open."""
    return all(ticket.failure is None for ticket in tickets) and any(ticket.open_choices for ticket in tickets)
