"""Are a call's tokens counted, and is nothing of it left in the engine, however it ends?"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import structs

from deployments.call_tally import CountedEngine
from deployments.frames import WINDOW_BYTES, Call, Failure, Part, Spent
from deployments.vllm_app import CHUNK_BYTES, Application
from routing import Tier

pytestmark = pytest.mark.anyio

ROUTER = b"router"
CALL = Call(7, 1, "POST", "/v1/x", [("accept", "*/*")], b"{}", 100, read_tokens=100)


def output(*tokens: int, finished: bool = False, finish: str | None = None) -> Any:
    """One choice for each number: so many tokens."""
    choices = [
        SimpleNamespace(index=index, token_ids=[0] * count, finish_reason=finish) for index, count in enumerate(tokens)
    ]
    return SimpleNamespace(prompt_token_ids=[1, 2, 3], num_cached_tokens=2, outputs=choices, finished=finished)


@dataclass
class Llm:
    """An engine that says these outputs, then waits if it must."""

    outputs: list[Any]
    stays: bool = False
    closed: int = 0
    aborted: list[str] = field(default_factory=list)
    orders: list[int] = field(default_factory=list)
    dtype: str = "float32"

    async def generate(self, _prompt: Any, _params: Any, _request_id: str, *, priority: int) -> AsyncIterator[Any]:
        self.orders.append(priority)
        try:
            for output in self.outputs:
                yield output
            if self.stays:
                await asyncio.Event().wait()
        finally:
            self.closed += 1

    encode = generate

    async def abort(self, names: list[str]) -> None:
        self.aborted.extend(names)


@dataclass
class Link:
    """An engine's end that keeps what was said."""

    said: list[Any] = field(default_factory=list)

    def say(self, _router: bytes, answer: Part | Failure | Spent) -> None:
        self.said.append(answer)

    async def room(self, _router: bytes) -> None:
        await asyncio.sleep(0)

    @property
    def tokens(self) -> tuple[int, int]:
        parts = [part for part in self.said if isinstance(part, Part)]
        return sum(part.prompt_tokens for part in parts), sum(part.output_tokens for part in parts)


def application(
    llm: Llm,
    kind: str = "DELTA",
    method: str = "generate",
    arrived: Callable[[], None] = lambda: None,
    cut_off: Callable[[], None] = lambda: None,
) -> Application:
    """An application that streams a line for each output of one request."""
    engine = CountedEngine(llm, arrived, cut_off, lambda _: 0.25)

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        params = SimpleNamespace(output_kind=SimpleNamespace(name=kind))
        async for _ in getattr(engine, method)("prompt", params, "name"):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return Application(app, llm.abort)


async def run(application: Application, call: Call = CALL) -> Link:
    link: Any = Link()
    await application.answer(ROUTER, call, link)
    assert application.open_calls == 0
    assert application.waiting() == (0, 0)
    return link


@pytest.mark.parametrize(
    ("kind", "outputs", "made"),
    [
        ("DELTA", [output(1), output(2), output(1, finished=True)], 4),
        ("DELTA", [output(1, 1), output(2, 0, finished=True)], 4),
        ("CUMULATIVE", [output(1), output(2), output(5, finished=True)], 5),
        ("CUMULATIVE", [output(1, 2), output(3, 4, finished=True)], 7),
        ("FINAL_ONLY", [output(6, 6, finished=True)], 12),
    ],
)
async def test_prompt_tokens_are_counted_once_and_output_tokens_as_they_come(
    kind: str, outputs: list[Any], made: int
) -> None:
    llm = Llm(outputs)
    link = await run(application(llm, kind))
    assert link.tokens == (3, made)
    assert [part.more for part in link.said if isinstance(part, Part)] == [True] * len(outputs) + [False]
    assert (llm.closed, llm.aborted) == (1, [])
    assert link.said[-2:] == [Spent(7, 0.25), Part(7, 1, bytearray(), False, output_tokens=link.said[-1].output_tokens)]
    assert sum(part.cached_tokens for part in link.said if isinstance(part, Part)) == 2


@pytest.mark.parametrize("method", ["generate", "encode"])
async def test_who_comes_after_tier_batch_is_read_before_it(method: str) -> None:
    llm = Llm([output(1, finished=True)])
    for tier in (Tier.BATCH, Tier.INTERACTIVE):
        await run(application(llm, method=method), structs.replace(CALL, tier=int(tier)))
    batch, interactive = llm.orders
    assert interactive < batch


async def test_a_pooling_request_has_a_prompt_and_no_output() -> None:
    vector = SimpleNamespace(data=[0.5])
    pooled = SimpleNamespace(prompt_token_ids=[1, 2], num_cached_tokens=0, outputs=vector, finished=True)
    assert (await run(application(Llm([pooled]), method="encode"))).tokens == (2, 0)


async def test_a_call_takes_credit_until_the_engine_has_it() -> None:
    asked: list[tuple[int, int]] = []
    app = application(Llm([output(1, finished=True)]), arrived=lambda: asked.append(app.waiting()))
    await run(app)
    assert asked == [(0, 0)], "the engine counts it from here on"
    link: Any = Link()
    answering = asyncio.ensure_future(app.answer(ROUTER, CALL, link))
    await asyncio.sleep(0)
    assert app.waiting() == (1, 100)
    await answering


async def test_a_call_whose_client_leaves_is_aborted_in_the_engine_and_its_tokens_are_told() -> None:
    llm = Llm([output(1), output(1)], stays=True)
    app = application(llm)
    link: Any = Link()
    answering = asyncio.ensure_future(app.answer(ROUTER, CALL, link))
    while link.tokens != (3, 2):
        await asyncio.sleep(0)
    app.leave(ROUTER, CALL.request)
    app.leave(ROUTER, 99)
    while not llm.aborted:
        await asyncio.sleep(0)
    assert not answering.done(), "the handler may tidy up"
    await answering
    assert set(llm.aborted) == {"name"}
    assert llm.closed == 1
    assert link.said[-2:] == [Spent(7, 0.25), Part(7, 1, bytearray(), False)]


async def test_calls_of_other_routers_go_on_when_one_is_lost() -> None:
    llm = Llm([output(1)], stays=True)
    app = application(llm)
    link: Any = Link()
    calls = [asyncio.ensure_future(app.answer(router, CALL, link)) for router in (b"a", b"b")]
    while len(link.said) < 2:
        await asyncio.sleep(0)
    app.drop(b"a")
    await calls[0]
    assert app.open_calls == 1
    app.drop(b"b")
    await calls[1]


async def test_other_attributes_are_the_engine_s() -> None:
    assert CountedEngine(Llm([]), lambda: None, lambda: None, lambda _: 0.0).dtype == "float32"


def saying(body: bytes, times: int) -> Application:
    """An application that says this so many times and hears of no end."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(times):
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def abort(_names: list[str]) -> None:
        pass

    return Application(app, abort)


def said_bytes(link: Link) -> int:
    return sum(len(part.body) for part in link.said if isinstance(part, Part))


async def stands_still(link: Link) -> int:
    """The bytes said after every turn that brings more."""
    before = -1
    while before != (now := said_bytes(link)):
        before = now
        for _ in range(5):
            await asyncio.sleep(0)
    return before


@pytest.mark.parametrize(("body", "times"), [(b"x" * 1000, 5000), (b"x" * (5 << 20), 1)])
async def test_it_says_no_more_than_the_window_until_some_was_read(body: bytes, times: int) -> None:
    app, link = saying(body, times), Link()
    answering = asyncio.ensure_future(app.answer(ROUTER, CALL, link))
    read = 0
    while not answering.done():
        said = await stands_still(link)
        assert said - read <= WINDOW_BYTES + CHUNK_BYTES
        assert said - read > WINDOW_BYTES or said == len(body) * times
        app.took(ROUTER, CALL.request, said - read)
        app.took(b"another", CALL.request, 10**9)
        read = said
    assert read == len(body) * times


async def test_one_that_waits_for_its_reader_ends_with_it() -> None:
    app, link = saying(b"x" * (5 << 20), 3), Link()
    answering = asyncio.ensure_future(app.answer(ROUTER, CALL, link))
    said = await stands_still(link)
    app.leave(ROUTER, CALL.request)
    await answering
    assert said_bytes(link) == said
    assert link.said[-1] == Part(7, 1, bytearray(), False)
