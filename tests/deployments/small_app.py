"""What stands in for vLLM's application? A small ASGI application that does what the body's `do` says."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

JSON = [(b"Content-Type", b"application/json")]
EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-inside", b"stays inside")]


@dataclass
class SmallApp:
    """Remembers who left. Streams go on with each `tick()`."""

    left: list[str] = field(default_factory=list)
    """What those calls did that saw their client go."""
    sent_bytes: int = 0
    _ticks: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        try:
            do = json.loads(body).get("do", "echo")
        except (ValueError, AttributeError):
            do = "echo"
        kind, _, count = do.partition(" ")
        await getattr(self, f"_{kind}")(scope, body, receive, send, int(count or 0))

    async def tick(self) -> None:
        """Lets each stream say one thing more."""
        async with self._ticks:
            self._ticks.notify_all()

    async def _echo(self, scope: dict[str, Any], body: bytes, _receive: Receive, send: Send, _count: int) -> None:
        seen = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        said = {"method": scope["method"], "path": scope["path"], "headers": seen, "body": body.decode("latin-1")}
        await _whole(send, 200, json.dumps(said).encode())

    async def _status(self, _scope: Any, _body: bytes, _receive: Receive, send: Send, count: int) -> None:
        await _whole(send, count, b'{"object":"error"}')

    async def _huge(self, _scope: Any, _body: bytes, _receive: Receive, send: Send, count: int) -> None:
        await _whole(send, 200, bytes(range(256)) * (count // 256))

    async def _stream(self, _scope: Any, _body: bytes, _receive: Receive, send: Send, count: int) -> None:
        """So many events, as fast as they are taken."""
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        for number in range(count):
            await self._say(send, b"data: %d\n\n" % number)
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def _flood(self, _scope: Any, _body: bytes, receive: Receive, send: Send, count: int) -> None:
        """Events of so many bytes until the client leaves."""
        leaving = asyncio.ensure_future(receive())
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        while not leaving.done():
            await self._say(send, b"data: " + b"x" * count + b"\n\n")
        self.left.append("flood")

    async def _ticked(self, _scope: Any, _body: bytes, receive: Receive, send: Send, _count: int) -> None:
        """An event for each tick, until the client leaves."""
        leaving = asyncio.ensure_future(receive())
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        number = 0
        while not leaving.done():
            await self._say(send, b"data: %d\n\n" % number)
            number += 1
            await asyncio.wait({leaving, asyncio.ensure_future(self._ticked_once())}, return_when="FIRST_COMPLETED")
        self.left.append("ticked")

    async def _wait(self, _scope: Any, _body: bytes, receive: Receive, _send: Send, _count: int) -> None:
        """Says nothing, and leaves with the client."""
        assert (await receive())["type"] == "http.disconnect"
        self.left.append("wait")

    async def _deaf(self, _scope: Any, _body: bytes, _receive: Receive, _send: Send, _count: int) -> None:
        """Does not hear that the client left."""
        try:
            await asyncio.Event().wait()
        finally:
            self.left.append("deaf")

    async def _fail(self, _scope: Any, _body: bytes, _receive: Receive, _send: Send, _count: int) -> None:
        raise RuntimeError("it broke")

    async def _short(self, _scope: Any, _body: bytes, _receive: Receive, send: Send, _count: int) -> None:
        """Breaks in the middle of a stream."""
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        await self._say(send, b"data: 0\n\n")
        raise RuntimeError("it broke")

    async def _ticked_once(self) -> None:
        async with self._ticks:
            await self._ticks.wait()

    async def _say(self, send: Send, body: bytes) -> None:
        self.sent_bytes += len(body)
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _whole(send: Send, status: int, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": JSON})
    await send({"type": "http.response.body", "body": body})
