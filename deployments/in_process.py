"""How does a part of a router ask one of its routes without HTTP, as a client with a key would?"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

import routing
from deployments.key_ring import Holder
from deployments.openai_wire import ApiError
from deployments.receiving import Receive, Scope
from deployments.reply import Send

Route = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(slots=True)
class Answer:
    """A whole answer; a refusal is one too."""

    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    code: str | None = None
    """Of a refusal by the router itself."""


async def ask(
    route: Route,
    path: str,
    body: bytes,
    *,
    holder: Holder | None,
    tier: routing.Tier,
    headers: dict[bytes, bytes],
) -> Answer:
    """What a route answers to a body. Nothing is more urgent than `tier`. Who is cancelled leaves as a client would."""
    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": [(b"content-type", b"application/json"), *headers.items()],
        "query_string": b"",
        "holder": holder,
        "tier": tier,
    }
    answer, pieces = Answer(), list[bytes]()

    async def send(event: dict[str, Any]) -> None:
        if event["type"] == "http.response.start":
            answer.status = event["status"]
            answer.headers = {
                name.decode("latin-1").lower(): value.decode("latin-1") for name, value in event["headers"]
            }
        else:
            pieces.append(event.get("body", b""))

    try:
        await route(scope, _receiver(body), send)
    except ApiError as error:
        return Answer(error.status, error.headers, msgspec.json.encode(error.body), error.code)
    answer.body = b"".join(pieces)
    return answer


def _receiver(body: bytes) -> Receive:
    """The body, and a client that stays."""
    told = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return told.pop() if told else await asyncio.get_running_loop().create_future()

    return receive
