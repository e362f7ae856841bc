"""What do many clients hear that send what none should, one connection each?"""

import asyncio
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httptools

from tests.deployments.malformed import Sent, malformed

AT_ONCE = 16
"""Connections."""
HANGS_S = 20.0
"""An answer that takes longer, on a machine that does other things too, is one that never comes."""
LEAVES_S = 0.03
"""A client that the server may wait for leaves after so long."""
ENOUGH_BYTES = 1 << 16
"""Nobody reads more of an answer."""


@dataclass
class Heard:
    """What came back, over all clients."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By what was sent; status 0: the connection was closed, or left, without one."""
    wrong: list[tuple[str, Any]] = field(default_factory=list)
    """Errors of a server, and silence, with what led to them."""


class _Response:
    """httptools' callbacks: a status, and whether an answer has ended."""

    def __init__(self) -> None:
        self.body, self.ended = b"", False

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ended = True


async def send_malformed(
    port: int, chance: random.Random, count: int, heard: Heard, patience_s: float = HANGS_S
) -> None:
    """Lets `count` clients do what `chance` makes them do. None waits longer than `patience_s` for what must come."""
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            sent = malformed(chance)
            await _one(port, sent, heard, patience_s)

    await asyncio.gather(*[work() for _ in range(AT_ONCE)])


async def _one(port: int, sent: Sent, heard: Heard, patience_s: float) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = bytearray()
    silent = False
    try:
        async with asyncio.timeout(patience_s if sent.answered else None):
            await _talk(reader, writer, sent, received)
    except TimeoutError:
        silent = True
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    status = int(received[9:12]) if received.startswith(b"HTTP/") else 0
    heard.statuses[sent.what, status] += 1
    if silent or (status >= 500 and status != 503):
        heard.wrong.append(("silence" if silent else bytes(received[:1000]).decode("latin-1"), sent))


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: Sent, received: bytearray) -> None:
    with suppress(ConnectionError):
        for piece in sent.pieces:
            writer.write(piece)
            await writer.drain()
            if len(sent.pieces) > 1:
                await asyncio.sleep(0.001)
        response = _Response()
        parser = httptools.HttpResponseParser(response)
        while not response.ended and len(received) < ENOUGH_BYTES:
            part = await _read(reader, patient=sent.answered)
            if not part:
                return
            received += part
            with suppress(httptools.HttpParserError):
                parser.feed_data(part)


async def _read(reader: asyncio.StreamReader, *, patient: bool) -> bytes:
    if patient:
        return await reader.read(1 << 16)
    try:
        return await asyncio.wait_for(reader.read(1 << 16), LEAVES_S)
    except TimeoutError:
        return b""
