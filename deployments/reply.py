"""How do the deltas of one HTTP request become its answer, streamed or whole?"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from deployments.lane import Ticket
from deployments.openai_answers import Answer, error_event
from deployments.openai_wire import ApiError
from deployments.router_metrics import Metered

Send = Callable[[dict[str, Any]], Awaitable[None]]

_EVENT_STREAM = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")],
}


async def respond(
    send: Send,
    status: int,
    body: bytes,
    kind: bytes = b"application/json",
    extra: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Sends a whole response; `extra` are further headers."""
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def stream(tickets: Sequence[Ticket], news: asyncio.Event, answer: Answer, send: Send, metered: Metered) -> None:
    """Writes events as deltas come; `news` is set whenever some have, or the client is gone.

    An error before the first event is raised as ApiError, a later one is an event.
    """
    opened, outcome = False, "failed"
    try:
        while any(ticket.unread for ticket in tickets):
            await news.wait()
            news.clear()
            if tickets[0].gone:
                outcome = "cancelled"
                return
            events = _events(tickets, answer, metered)
            if events and not opened:
                await send(_EVENT_STREAM)
                opened = True
            if chunk := b"".join(events):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": answer.ending()})
        outcome = "ok"
    except ApiError as error:
        if not opened:
            raise
        await send({"type": "http.response.body", "body": error_event(error.body)})
    finally:
        metered.end(outcome)


async def whole(tickets: Sequence[Ticket], news: asyncio.Event, answer: Answer, send: Send, metered: Metered) -> None:
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
        metered.end(outcome)
    await respond(send, 200, answer.whole(choices))


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
