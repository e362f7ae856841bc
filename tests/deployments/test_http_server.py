"""Routers come and go on one port. Is every connection answered, and does every answer come to its end?"""

import asyncio
import errno
import os
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from filelock import FileLock

from deployments import listener
from deployments.fleet import Limits
from deployments.http_server import HttpServer
from deployments.listener import listen
from tests.deployments.http_peer import answer
from tests.deployments.http_served import until

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
PEER = Path(__file__).parent / "http_peer.py"


@dataclass
class Port:
    """A fleet's port, its servers in this process and in others, and its clients."""

    folder: Path
    number: int
    peers: list[asyncio.subprocess.Process] = field(default_factory=list)
    clients: list["Client"] = field(default_factory=list)

    async def serve(self) -> HttpServer:
        """One more server, in this process."""
        server = HttpServer(answer, listen("127.0.0.1", self.number, folder=self.folder, fleet="fleet"), Limits())
        await server.start()
        return server

    async def start(self) -> asyncio.subprocess.Process:
        """One more server, in a process of its own."""
        peer = await asyncio.create_subprocess_exec(
            sys.executable, str(PEER), str(self.folder), "fleet", str(self.number),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.peers.append(peer)
        assert peer.stdout is not None
        assert await peer.stdout.readline() == b"up\n"
        return peer

    async def ask(self, pieces: int = 1, *, close: bool = True) -> "Answer":
        """A request on a new connection."""
        client = await self.connect()
        return await client.ask(pieces, close=close)

    async def connect(self) -> "Client":
        client = Client(*await asyncio.open_connection("127.0.0.1", self.number))
        self.clients.append(client)
        return client


@dataclass
class Answer:
    """What came back, to the end of the connection where there was one."""

    head: bytes
    body: bytes

    @property
    def pieces(self) -> list[bytes]:
        """Raises ValueError when the answer was cut short."""
        lines = self.body.split(b"\r\n")
        if lines[-3:] != [b"0", b"", b""]:
            raise ValueError(f"cut short: {self.body[-60:]!r}")
        *pieces, end = [line for line in lines[1:-3:2]]
        if end != b".":
            raise ValueError(f"cut short: {self.body[-60:]!r}")
        return pieces


@dataclass
class Client:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, pieces: int, *, close: bool = True) -> None:
        extra = b"connection: close\r\n" if close else b""
        self.writer.write(b"GET /%d HTTP/1.1\r\nhost: a\r\n%s\r\n" % (pieces, extra))

    async def ask(self, pieces: int = 1, *, close: bool = True) -> Answer:
        self.send(pieces, close=close)
        return await self.answer()

    async def answer(self) -> Answer:
        head = await self.reader.readuntil(b"\r\n\r\n")
        body = await self.reader.readuntil(b"0\r\n\r\n")
        if b"connection: close" in head:
            body += await self.reader.read()
            self.writer.close()
        return Answer(head, body)


async def tell_to_drain(peer: asyncio.subprocess.Process) -> None:
    assert peer.stdin is not None
    peer.stdin.write(b"\n")
    assert await peer.wait() == 0


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    with socket.socket() as free, tempfile.TemporaryDirectory(dir="/tmp") as folder:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
        free.close()
        port = Port(Path(folder), number)
        yield port
        for client in port.clients:
            client.writer.close()
        for peer in port.peers:
            if peer.returncode is None:
                peer.kill()
                await peer.wait()


@asynccontextmanager
async def clients(port: Port, count: int) -> AsyncIterator[Counter[bytes]]:
    """Clients that open a new connection for each request, as fast as they can; answers by process."""
    answered: Counter[bytes] = Counter()
    go_on = True

    async def ask() -> None:
        while go_on:
            answered.update((await port.ask()).pieces)

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(ask())
        yield answered
        go_on = False


async def test_servers_are_replaced_one_after_the_other_and_no_connection_is_lost(port: Port) -> None:
    serving = [await port.start(), await port.start()]
    long = asyncio.ensure_future(port.ask(300))
    async with clients(port, count=8) as answered:
        for _ in range(3):
            new = await port.start()
            before = answered.total()
            await until(lambda before=before: answered.total() > before + 50)
            await tell_to_drain(serving.pop(0))
            serving.append(new)
    assert len(answered) == 5
    assert min(answered.values()) > 0
    assert len((await long).pieces) == 300


async def test_a_stream_goes_on_to_its_end_while_others_take_the_port_over(port: Port) -> None:
    first = await port.serve()
    old = asyncio.ensure_future(port.ask(100, close=False))
    kept = await port.connect()
    await kept.ask(close=False)
    await until(lambda: len(first.open_answers()) == 1)
    second = await port.serve()
    draining = asyncio.ensure_future(first.drain(settle_s=0.0))
    assert await kept.reader.read() == b""
    assert not draining.done()
    assert len((await port.ask()).pieces) == 1
    answer = await old
    assert len(answer.pieces) == 100
    await draining
    assert first.ended
    await second.drain(settle_s=0.0)


async def test_what_is_answered_while_it_settles_asks_for_another_connection(port: Port) -> None:
    server = await port.serve()
    kept = await port.connect()
    assert b"connection: close" not in (await kept.ask(close=False)).head
    draining = asyncio.ensure_future(server.drain(settle_s=0.5))
    await asyncio.sleep(0)
    for client in (kept, await port.connect()):
        client.send(1, close=False)
        assert b"connection: close" in await client.reader.readuntil(b"\r\n\r\n")
        await client.reader.read()
    assert not draining.done()
    await draining
    with pytest.raises(ConnectionRefusedError):
        await port.connect()


async def test_a_connection_that_was_accepted_before_the_end_may_still_ask(port: Port) -> None:
    server = await port.serve()
    early = await port.connect()
    await until(lambda: server.expects_requests())
    draining = asyncio.ensure_future(server.drain(settle_s=0.0))
    second = await port.serve()
    await until(lambda: server.left)
    assert (await early.ask(close=False)).pieces
    await draining
    await second.drain(settle_s=0.0)


async def test_a_server_that_is_killed_loses_only_what_it_had_accepted(port: Port) -> None:
    killed, other = await port.start(), await port.start()
    os.kill(other.pid, signal.SIGSTOP)
    os.kill(killed.pid, signal.SIGSTOP)
    waiting = [await port.connect() for _ in range(20)]
    os.kill(killed.pid, signal.SIGKILL)
    await killed.wait()
    os.kill(other.pid, signal.SIGCONT)
    for client in waiting:
        assert (await client.ask()).pieces == [b"%d " % other.pid]
    third = await port.start()
    await tell_to_drain(other)
    assert (await port.ask()).pieces == [b"%d " % third.pid]
    await tell_to_drain(third)
    assert [path.name for path in port.folder.iterdir()] == ["lock"]


async def test_of_a_burst_a_server_takes_one_connection_in_each_turn_and_leaves_the_others_theirs(port: Port) -> None:
    server = await port.serve()
    other = listen("127.0.0.1", port.number, folder=port.folder, fleet="fleet")
    # Not a turn of the event loop goes by until all of them wait.
    burst, others = [socket.create_connection(("127.0.0.1", port.number)) for _ in range(60)], []
    while len(others) + len(server._connections()) + len(server._arriving) < len(burst):
        await asyncio.sleep(0)
        with suppress(BlockingIOError):
            others.append(other.socket.accept()[0])
    for one in (*burst, *others):
        one.close()
    other.leave()
    await server.drain(settle_s=0.0)
    assert len(others) >= len(burst) // 3, "each takes one in turn"


async def test_a_server_ends_even_when_another_hangs_while_it_takes_the_socket(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "PATIENCE_S", 0.05)
    server = await port.serve()
    with FileLock(port.folder / "lock"):
        await server.drain(settle_s=0.0)
    assert server.ended


async def test_another_fleet_does_not_get_the_port(port: Port) -> None:
    server = await port.serve()
    with pytest.raises(OSError) as refused:  # noqa: PT011 (the number is looked at)
        listen("127.0.0.1", port.number, folder=port.folder, fleet="another")
    assert refused.value.errno == errno.EADDRINUSE
    await server.drain(settle_s=0.0)
    listen("127.0.0.1", port.number, folder=port.folder, fleet="another").leave()
