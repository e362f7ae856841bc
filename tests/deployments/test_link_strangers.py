"""Does an engine's port hear nobody but its routers, whatever comes to it, and them all the while?"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

from deployments.link import EngineEnd
from tests.deployments.link_ends import Ear, engine_end, frame, raw_router, submit

pytestmark = pytest.mark.anyio

REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


@asynccontextmanager
async def engine() -> AsyncIterator[tuple[EngineEnd, Ear]]:
    """An engine's end, which a router with a key reaches before and after what a test does to it."""
    ear = Ear()
    with engine_end(ear) as end:
        async with raw_router(end) as router:
            await router.send(frame(0, submit(1)))
            await ear.until(lambda: ear.heard)
            yield end, ear
            await router.send(frame(1, submit(2)))
            await ear.until(lambda: len(ear.heard) > 1)
        assert ear.heard == [submit(1), submit(2)]
        assert ear.lost == []


def no_key(_engine: EngineEnd, _socket: zmq.Socket[Any]) -> None:
    """What ZeroMQ does by itself."""


def a_password(_engine: EngineEnd, socket: zmq.Socket[Any]) -> None:
    socket.plain_username, socket.plain_password = b"router", b"secret"


def a_key_of_nobody(engine: EngineEnd, socket: zmq.Socket[Any]) -> None:
    socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    socket.curve_serverkey = engine.public_key


def a_router_s_public_key_alone(engine: EngineEnd, socket: zmq.Socket[Any]) -> None:
    known, _ = zmq.curve_keypair()
    engine.allow(known)
    socket.curve_publickey, socket.curve_secretkey = known, zmq.curve_keypair()[1]
    socket.curve_serverkey = engine.public_key


def another_engine_s_key(engine: EngineEnd, socket: zmq.Socket[Any]) -> None:
    """Of a router that would be let in, but does not know whom it talks to."""
    keys = zmq.curve_keypair()
    engine.allow(keys[0])
    socket.curve_publickey, socket.curve_secretkey = keys
    socket.curve_serverkey = zmq.curve_keypair()[0]


@pytest.mark.parametrize(
    "come", [no_key, a_password, a_key_of_nobody, a_router_s_public_key_alone, another_engine_s_key]
)
async def test_who_has_not_the_right_keys_is_turned_away(come: Callable[[EngineEnd, zmq.Socket[Any]], None]) -> None:
    async with engine() as (end, _):
        with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as socket:
            come(end, socket)
            socket.linger = 0
            with socket.get_monitor_socket(REFUSED | zmq.EVENT_DISCONNECTED) as events:
                socket.connect(end.address)
                await socket.send(frame(0, submit(7)))
                await asyncio.wait_for(recv_monitor_message(events), 5.0)
                socket.disable_monitor()


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01"


@pytest.mark.parametrize(
    "said",
    [
        b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        GREETING + b"NULL".ljust(20, b"\0") + bytes(32) + b"\x04\x26\x05READY" + bytes(32),
        GREETING + b"CURVE".ljust(20, b"\0") + bytes(32) + b"\x04\xc8\x05HELLO" + bytes(194),
        GREETING + b"CURVE".ljust(20, b"\0") + bytes(32) + b"\x06" + b"\xff" * 8,
    ],
    ids=["http", "tls", "no encryption", "an empty hello", "a frame of 16 EiB"],
)
async def test_what_is_no_handshake_ends_the_connection(said: bytes) -> None:
    async with engine() as (end, _):
        await to_its_end(end, said)


async def test_random_bytes_are_heard_by_nobody() -> None:
    async with engine() as (end, _):
        for _ in range(200):
            with suppress(OSError):
                reader, writer = await connect(end)
                writer.write(os.urandom(300))
                await writer.drain()
                writer.close()
                await reader.read()


async def test_a_recorded_conversation_says_nothing_when_it_is_played_again() -> None:
    async with engine() as (end, ear):
        async with tapped(end) as (address, recorded):
            with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as router:
                public_key, secret_key = zmq.curve_keypair()
                end.allow(public_key)
                router.curve_publickey, router.curve_secretkey = public_key, secret_key
                router.curve_serverkey, router.linger = end.public_key, 0
                router.connect(address)
                await router.send(frame(0, submit(7)))
                await ear.until(lambda: len(ear.heard) == 2)
        await ear.until(lambda: ear.lost)
        assert ear.heard.pop() == submit(7)
        ear.lost.clear()
        await to_its_end(end, bytes(recorded))


async def connect(end: EngineEnd) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(end.address)
    assert parts.hostname is not None
    return await asyncio.open_connection(parts.hostname, parts.port)


async def to_its_end(end: EngineEnd, said: bytes) -> None:
    """Says it, and reads until the engine closes the connection."""
    reader, writer = await connect(end)
    with suppress(ConnectionError):
        writer.write(said)
        await asyncio.wait_for(reader.read(), 5.0)
    writer.close()


@asynccontextmanager
async def tapped(end: EngineEnd) -> AsyncIterator[tuple[str, bytearray]]:
    """An address through which the engine is reached, and all that is said to it there."""
    recorded = bytearray()

    async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter, keep: bytearray | None) -> None:
        while some := await source.read(1 << 16):
            if keep is not None:
                keep += some
            target.write(some)
            await target.drain()
        target.close()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, on = await connect(end)
        with suppress(ConnectionError):
            await asyncio.gather(carry(reader, on, recorded), carry(there, writer, None))

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"tcp://{host}:{port}", recorded
