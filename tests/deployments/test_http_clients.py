"""What happens when a client leaves early, or reads slowly?"""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.deployments.fake_engine import FakeEngine, expected
from tests.deployments.http_served import Served, events, serve, until

pytestmark = pytest.mark.anyio

AT_ONCE_S = 0.5
"""An engine hears of a client's end within so long, on a busy machine too."""


@pytest.fixture
async def served(tokenizer_folder: Path) -> AsyncIterator[Served]:
    """A server that must have nothing left at the end, whatever its clients did."""
    async with serve(tokenizer_folder, FakeEngine(slots=2)) as served:
        yield served
        await until(lambda: served.lane.open_requests() == 0)
        await until(lambda: served.engine.unfinished == 0)
        assert served.lane.queued_tokens == 0
        assert not (await served.metrics()).get('headrace_open_requests{model="tiny"}')


def ask(content: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 4000, **fields}


async def receive(client: socket.socket) -> bytes:
    async with asyncio.timeout(5.0):
        return await asyncio.get_running_loop().sock_recv(client, 1 << 16)


async def counted(served: Served, name: str) -> None:
    """Waits until the metric of this name is 1."""
    async with asyncio.timeout(5.0):
        while (await served.metrics()).get(name) != 1:
            pass


CANCELLED = 'headrace_requests_total{model="tiny",outcome="cancelled"}'


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_while_it_runs_is_cancelled_in_the_engine_at_once(
    served: Served, stream: bool
) -> None:
    with served.connection(ask(stream=stream)) as client:
        await served.engine.until(lambda: bool(served.engine.submits))
        if stream:
            assert (await receive(client)).startswith(b"HTTP/1.1 200 OK")
    left_s = monotonic()
    await served.engine.until(lambda: bool(served.engine.cancels))
    assert monotonic() - left_s < AT_ONCE_S
    assert served.engine.cancels == [served.engine.submits[0].request]
    assert served.engine.unfinished == 0
    await counted(served, CANCELLED)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_the_first_token_is_cancelled_too(served: Served, stream: bool) -> None:
    served.engine.stall()
    with served.connection(ask(stream=stream)):
        await served.engine.until(lambda: bool(served.engine.submits))
    await served.engine.until(lambda: bool(served.engine.cancels))
    assert served.engine.unfinished == 0
    await counted(served, CANCELLED)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_the_queue_never_reaches_the_engine(served: Served, stream: bool) -> None:
    served.engine.stall()
    with served.connection(ask("a")), served.connection(ask("b")):
        await served.engine.until(lambda: served.engine.unfinished == 2)
        with served.connection(ask("c", stream=stream)):
            await until(lambda: served.lane.queued_requests == 1)
        await until(lambda: served.lane.queued_requests == 0)
        assert len(served.engine.submits) == 2
        await counted(served, CANCELLED)


async def test_a_client_with_many_prompts_takes_all_of_them_along(served: Served) -> None:
    body = {"prompt": ["a", "b", "c", "d"], "n": 2, "max_tokens": 4000, "stream": True}
    with served.connection(body, "/v1/completions"):
        await served.engine.until(lambda: served.engine.unfinished == 2)
        assert served.lane.queued_requests == 2
    await served.engine.until(lambda: len(served.engine.cancels) == 2)
    assert served.lane.open_requests() == 0


async def test_a_client_that_leaves_before_its_body_is_complete_leaves_nothing(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\n{")
    await counted(served, 'headrace_refusals_total{status="499"}')
    assert not served.engine.submits


async def test_one_client_that_leaves_does_not_disturb_the_others(served: Served) -> None:
    staying = asyncio.ensure_future(
        served.http.post("/v1/chat/completions", json=ask("stays", model="tiny", max_tokens=200, stream=True))
    )
    with served.connection(ask("leaves", stream=True)) as client:
        await receive(client)
    text = "".join(event["choices"][0]["delta"].get("content", "") for event in events((await staying).text))
    assert text == (await served.said("stays", 200)).text


async def test_a_slow_reader_gets_everything_in_fewer_and_larger_events(tokenizer_folder: Path) -> None:
    tokens = 3000
    async with serve(tokenizer_folder, FakeEngine(step_s=[0.0])) as served:
        with served.connection(ask(max_tokens=tokens, stream=True)) as client:
            await served.engine.until(lambda: bool(served.engine.submits) and served.engine.unfinished == 0)
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                received += await receive(client)
        said = events(_body(received))
        ids = await served.chat_ids("hello")
        await until(lambda: served.lane.open_requests() == 0)
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in said) == (
        expected(ids, max_tokens=tokens).text
    )
    assert said[-1]["choices"][0]["finish_reason"] == "length"
    assert len(said) < tokens / 2, "what the client had not taken was merged"


def _body(received: bytes) -> str:
    """The chunked body of one response."""
    _, _, rest = received.partition(b"\r\n\r\n")
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if not int(size, 16):
            return body.decode()
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
