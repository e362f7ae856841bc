"""What does a test hold of the link? Ends that remember what they were told, and a router's socket without a
router.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import msgspec
import zmq
import zmq.asyncio

from deployments.frames import VERSION, Call, Cancel, EngineFrame, Load, RouterFrame, Submit, Took
from deployments.link import EngineEnd, RouterEnd


@dataclass
class Ear:
    """Everything that one end was told, and a way to wait for more."""

    heard: list[Any] = field(default_factory=list)
    lost: list[Any] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, *said: Any) -> None:
        self.heard.append(said[-1])
        self.times_s.append(monotonic())
        self._news.set()

    def lose(self, who: Any) -> None:
        self.lost.append((who, monotonic()))
        self._news.set()

    async def until(self, happened: Callable[[], Any]) -> None:
        async with asyncio.timeout(5.0):
            while not happened():
                self._news.clear()
                await self._news.wait()

    @property
    def frames(self) -> list[EngineFrame]:
        return [frame for frame in self.heard if frame.deltas or frame.parts or frame.failures or frame.goodbye]


@contextmanager
def engine_end(ear: Ear, load: Load | None = None) -> Iterator[EngineEnd]:
    template = load or Load()
    end = EngineEnd(
        host="127.0.0.1",
        on_message=lambda router, message: ear.hear(router, message),
        on_lost=ear.lose,
        load=lambda: msgspec.structs.replace(template),
    )
    try:
        yield end
    finally:
        end.close()


@contextmanager
def router_end(ear: Ear, engine: EngineEnd) -> Iterator[RouterEnd]:
    keys = zmq.curve_keypair()
    engine.allow(keys[0])
    end = RouterEnd(
        address=engine.address, engine_key=engine.public_key, keys=keys, on_frame=ear.hear, on_lost=ear.lose
    )
    try:
        yield end
    finally:
        end.close()


@asynccontextmanager
async def raw_router(engine: EngineEnd, *, allowed: bool = True) -> AsyncIterator[zmq.asyncio.Socket]:
    """A router's socket without a router: says and reads just what a test wants."""
    public_key, secret_key = zmq.curve_keypair()
    if allowed:
        engine.allow(public_key)
    with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.curve_publickey, socket.curve_secretkey = public_key, secret_key
        socket.curve_serverkey = engine.public_key
        socket.linger = 0
        socket.rcvhwm = 1
        socket.rcvbuf = 1 << 16
        socket.connect(engine.address)
        yield socket


def submit(number: int) -> Submit:
    return Submit(number, 0, [1, 2, 3], {"max_tokens": 4}, True, None)


def frame(sequence: int, *messages: Submit | Call | Cancel | Took, version: int = VERSION) -> bytes:
    return msgspec.msgpack.encode(RouterFrame(version, sequence, list(messages)))
