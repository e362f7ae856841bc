"""What does a test of the HTTP interface talk to? A real server, lane and links; engines without a model."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai
import uvicorn

from autoscaling import Targets
from deployments.batches.running import Batches
from deployments.bill import Journal
from deployments.desks import Desk
from deployments.files.shelf import Shelf
from deployments.fleet import RouterSettings, Tenant
from deployments.http_api import HttpApi
from deployments.http_connection import Connection
from deployments.key_ring import KeyRing
from deployments.lane import Lane
from deployments.late_store import LateStore
from deployments.openai_wire import ChatRequest, Message
from deployments.render import Renderer
from deployments.router_metrics import RouterMetrics
from deployments.stored_routes import StoredRoutes, stored
from deployments.tolls import Tolls
from deployments.variants import Served as Variant
from deployments.variants import Variants
from tests.deployments.fake_engine import FakeEngine, Said, expected

MODEL = "tiny"
CHAT, TEXT, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
USUAL = RouterSettings()


@dataclass(kw_only=True)
class Served:
    """A router's HTTP server with one model."""

    port: int
    api: HttpApi
    lane: Lane
    desk: Desk
    engines: list[FakeEngine]
    http: httpx.AsyncClient
    ring: KeyRing
    batches: Batches | None
    """Where there is a store."""

    @property
    def openai(self) -> openai.AsyncOpenAI:
        """The official client."""
        url = f"http://127.0.0.1:{self.port}/v1"
        return openai.AsyncOpenAI(base_url=url, api_key="none", http_client=self.http, max_retries=0)

    @property
    def engine(self) -> FakeEngine:
        return self.engines[0]

    def add(self, engine: FakeEngine) -> None:
        """One more replica."""
        self.engines.append(engine)
        engine.join(self.lane, f"replica{len(self.engines)}")

    async def chat_ids(self, content: str) -> list[int]:
        """What the engine gets for one user message."""
        messages = [Message(role="user", content=content)]
        return await self.desk.renderer.chat(ChatRequest(model=MODEL, messages=messages))

    async def said(self, content: str, max_tokens: int, stop: Sequence[str] = (), index: int = 0) -> Said:
        """What the engine answers to one user message."""
        return expected(await self.chat_ids(content), max_tokens=max_tokens, stop=stop, index=index)

    async def metrics(self) -> dict[str, float]:
        """The samples on /metrics by their names, labels included."""
        lines = (await self.http.get("/metrics")).text.splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    @contextmanager
    def connection(self, body: dict[str, Any], path: str = "/v1/chat/completions") -> Iterator[socket.socket]:
        """A bare connection that has just sent a request. Its receive buffer is small."""
        content = json.dumps({"model": MODEL} | body).encode()
        kind = "content-type: application/json"
        head = f"POST {path} HTTP/1.1\r\nhost: test\r\n{kind}\r\ncontent-length: {len(content)}\r\n\r\n"
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            client.connect(("127.0.0.1", self.port))
            client.setblocking(False)
            client.sendall(head.encode() + content)
            yield client


@dataclass(kw_only=True)
class Kept:
    """A store, and a place for files."""

    url: str
    files: str
    lease_s: float = 10.0
    said: list[str] = field(default_factory=list)
    """What batches log."""


def do(what: str, **fields: Any) -> dict[str, Any]:
    """The body of a request of which a small application does this."""
    return {"model": MODEL, "do": what, **fields}


@asynccontextmanager
async def serve(
    folder: Path,
    *engines: FakeEngine,
    max_queued_requests: int = 100,
    wakes: bool = False,
    settings: RouterSettings = USUAL,
    tenants: Sequence[Tenant] = (),
    ring: KeyRing | None = None,
    journal: Journal | None = None,
    tolls: Tolls | None = None,
    variants: Mapping[str, tuple[float, FakeEngine]] = {},
    ttft_s: float = 1.0,
    kept: Kept | None = None,
) -> AsyncIterator[Served]:
    """Serves the tokenizer in `folder` with these engines, until the end; `variants`: by name, quality and engine."""
    lane = Lane(MODEL, max_queued_requests=max_queued_requests, log=lambda _: None)
    lanes = {name: Lane(f"{MODEL}-{name}", max_queued_requests=100, log=lambda _: None) for name in variants}
    forms = [Variant(MODEL, 1.0, lane), *(Variant(name, variants[name][0], lanes[name]) for name in variants)]
    replicas = list(engines)
    try:
        with ThreadPoolExecutor(max_workers=1) as threads:
            # Before the links: importing a tokenizer takes seconds, in which they would be silent.
            desk = Desk(lane, Renderer(str(folder), threads), created=1, wakes=wakes)
            desk.variants = Variants(MODEL, forms, ttft_s=ttft_s) if variants else None
            ring, metrics = ring or KeyRing(tenants), RouterMetrics(Targets())
            told = ({MODEL: desk}, metrics, settings, ring, journal, tolls)
            async with AsyncExitStack() as stack:
                routes, batches = await stack.enter_async_context(_batches(kept, *told))
                api = HttpApi(*told, routes)
                port = await stack.enter_async_context(_server(api, settings))
                http = await stack.enter_async_context(_client(port))
                served = Served(
                    port=port, api=api, lane=lane, desk=desk, engines=[], http=http, ring=ring, batches=batches
                )
                replicas = served.engines
                for engine in engines:
                    served.add(engine)
                for name, (_, engine) in variants.items():
                    engine.join(lanes[name], f"{name}-replica")
                await until(lambda: all(one.heard for each in desk.lanes for one in each.replicas.values()))
                yield served
    finally:
        for each in (lane, *lanes.values()):
            each.close()
        for engine in (*replicas, *(engine for _, engine in variants.values())):
            engine.close()
        # pyzmq's authenticator takes its descriptor off the loop a turn after it was closed: by then another socket
        # might have it, and would hear nothing more.
        await asyncio.sleep(0)
        await asyncio.sleep(0)


@asynccontextmanager
async def _batches(kept: Kept | None, *told: Any) -> AsyncIterator[tuple[StoredRoutes | None, Batches | None]]:
    if kept is None:
        yield None, None
        return
    store, look_s = LateStore(kept.url), 0.05
    routes, batches = stored(store, Shelf(kept.files), *told, kept.said.append, lease_s=kept.lease_s, look_s=look_s)
    batches.begin()
    try:
        yield routes, batches
    finally:
        await batches.close()
        store.close()


@asynccontextmanager
async def _server(api: HttpApi, settings: RouterSettings) -> AsyncIterator[int]:
    """Runs uvicorn in this loop; its port."""
    connection: Any = partial(Connection, limits=settings.limits)
    config = uvicorn.Config(api, http=connection, ws="none", lifespan="off", access_log=False, log_config=None)
    server = uvicorn.Server(config)
    with _listener() as listener:
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


def _client(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10.0)


@contextmanager
def _listener() -> Iterator[socket.socket]:
    """On a free port; what it accepts has a small send buffer, so that a reader can be slow in a test."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        listener.setblocking(False)
        yield listener


async def until(happened: Callable[[], Any]) -> None:
    """Waits until something is so. Raises TimeoutError."""
    async with asyncio.timeout(5.0):
        while not happened():
            await asyncio.sleep(0.002)


async def idle(served: Served) -> None:
    """Waits until nothing is left of what clients asked, whatever they did."""
    await until(lambda: served.lane.open_requests() == 0)
    await until(lambda: served.engine.unfinished == 0)
    assert served.lane.queued_tokens == 0
    assert not (await served.metrics()).get('headrace_open_requests{model="tiny"}')


def events(body: str) -> list[Any]:
    """What the events of a stream hold, but for the last, which must be the end mark."""
    *said, done, rest = body.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(block.removeprefix("data: ")) for block in said]
