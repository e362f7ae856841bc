"""What comes from a client after the head of its request: a body, and in the end its leaving?"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import routing
from deployments.fleet import Limits, RouterSettings
from deployments.lane import Lane
from deployments.openai_wire import ApiError
from deployments.patience import Patience
from deployments.ticket import Ticket

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
"""Both as in ASGI. A scope has besides: `holder`, whose key it brings, and where the router asks itself `tier`."""


def most_urgent(scope: Scope) -> routing.Tier:
    """The most urgent tier that a request may have, whatever it asks for."""
    return scope.get("tier", routing.Tier.INTERACTIVE)


async def read_body(receive: Receive, allowed: Limits) -> bytes:
    """The whole body. Raises ApiError when it is too large or too slow, or the client leaves."""
    try:
        async with asyncio.timeout(allowed.body_s):
            return await _read(receive, allowed.body_bytes)
    except TimeoutError:
        message = f"The body was not complete {allowed.body_s:g} s after the head of the request."
        # What may still come of it is not waited for.
        raise ApiError(408, message, code="request_timeout", close=True) from None


async def _read(receive: Receive, most_bytes: int) -> bytes:
    parts, size = [], 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ApiError(499, "The client closed the connection before the body was complete.")
        part = event.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > most_bytes:
            raise ApiError(413, f"The body is larger than {most_bytes} bytes.", code="body_too_large")
        if not event.get("more_body"):
            return b"".join(parts)


@contextmanager
def watched(lane: Lane, receive: Receive, settings: RouterSettings, *, stream: bool) -> Iterator[list[Ticket]]:
    """For the tickets of one client: they fail when it waited too long, and leave the lane with it or at the end."""
    tickets: list[Ticket] = []
    watch = asyncio.ensure_future(wait_for_disconnect(receive))
    watch.add_done_callback(lambda _: [lane.leave(ticket) for ticket in tickets])
    patience = Patience(tickets, settings, stream=stream)
    try:
        yield tickets
    finally:
        patience.close()
        watch.cancel()


async def wait_for_disconnect(receive: Receive) -> None:
    """Returns when the client of a request whose body was read has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
