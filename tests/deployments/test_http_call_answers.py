"""Does a client get what vLLM's own application answers, as it is said, and does a call end with its client?"""

import asyncio
import hashlib
import json
import socket
from pathlib import Path

import pytest

from deployments.frames import WINDOW_BYTES
from deployments.vllm_app import CHUNK_BYTES
from tests.deployments.fake_engine import FakeEngine
from tests.deployments.http_served import CHAT, MODEL, RESPONSES, Served, do, serve, until

pytestmark = pytest.mark.anyio


async def received(client: socket.socket) -> bytes:
    async with asyncio.timeout(5.0):
        return await asyncio.get_running_loop().sock_recv(client, 1 << 16)


async def begun(served: Served, calls: int = 1) -> None:
    await served.engine.until(lambda: len(served.engine.calls) == calls)


async def test_an_error_of_the_application_is_passed_on_and_counted(fresh: Served) -> None:
    answer = await fresh.http.post(RESPONSES, json=do("status 422"))
    assert (answer.status_code, answer.content) == (422, b'{"object":"error"}')
    seen = await fresh.metrics()
    assert seen['headrace_refusals_total{status="422"}'] == 1
    assert seen['headrace_requests_total{model="tiny",outcome="failed"}'] == 1


async def test_a_stream_comes_as_it_was_said_with_its_kind(served: Served) -> None:
    answer = await served.http.post(RESPONSES, json=do("stream 300"))
    assert answer.content == b"".join(b"data: %d\n\n" % number for number in range(300)) + b"data: [DONE]\n\n"
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "x-inside" not in answer.headers


async def test_each_event_is_passed_on_when_it_is_said(served: Served) -> None:
    async with served.http.stream("POST", RESPONSES, json=do("ticked")) as answer:
        events = answer.aiter_raw()
        for number in range(5):
            assert await anext(events) == b"data: %d\n\n" % number
            await served.engine.app.tick()


async def test_a_huge_answer_arrives_whole(served: Served) -> None:
    size = 6 * CHUNK_BYTES + 256
    answer = await served.http.post(RESPONSES, json=do(f"huge {size}"))
    wanted = hashlib.sha256(bytes(range(256)) * (size // 256)).digest()
    assert (len(answer.content), hashlib.sha256(answer.content).digest()) == (size, wanted)


async def test_many_clients_at_once_each_get_their_own_answer(served: Served) -> None:
    async def one(number: int) -> None:
        if number % 3:
            answer = await served.http.post(RESPONSES, json=do("echo", number=number))
            assert json.loads(answer.json()["body"])["number"] == number
        else:
            body = {"model": MODEL, "messages": [{"role": "user", "content": str(number)}], "max_tokens": 20}
            answer = await served.http.post(CHAT, json=body)
            assert answer.json()["choices"][0]["message"]["content"] == (await served.said(str(number), 20)).text

    await asyncio.gather(*[one(number) for number in range(40)])


@pytest.mark.parametrize("what", ["wait", "ticked", "deaf"])
async def test_a_client_that_leaves_ends_its_call(served: Served, what: str) -> None:
    with served.connection(do(what), RESPONSES) as client:
        await begun(served)
        if what == "ticked":
            assert (await received(client)).startswith(b"HTTP/1.1 200 OK")
    await until(lambda: served.engine.app.left == [what])
    assert served.engine.cancels == [served.engine.calls[0].request]


async def test_a_client_that_leaves_the_queue_never_reaches_the_application(tokenizer_folder: Path) -> None:
    async with serve(tokenizer_folder, FakeEngine(slots=1)) as served:
        with served.connection(do("wait"), RESPONSES):
            await begun(served)
            with served.connection(do("wait"), RESPONSES):
                await until(lambda: served.lane.queued_requests == 1)
            await until(lambda: served.lane.queued_requests == 0)
        await until(lambda: served.engine.unfinished == 0)
        assert len(served.engine.calls) == 1


async def test_a_slow_client_gets_everything_joined(served: Served) -> None:
    with served.connection(do("stream 900"), RESPONSES) as client:
        await begun(served)
        await served.engine.until(lambda: served.engine.unfinished == 0)
        got = b""
        while not got.endswith(b"0\r\n\r\n"):
            got += await received(client)
    assert all(b"data: %d\n\n" % number in got for number in (0, 450, 899))


BEHIND_BYTES = 4 * WINDOW_BYTES
"""What may be on the way to a client that does not read: a window in the engine's part of it, one in the router, and
what both machines' sockets hold."""


async def standing_still(served: Served) -> int:
    """Waits until an application that a slow client holds up says no more; the bytes that it has said."""
    while True:
        said_bytes = served.engine.app.sent_bytes
        await asyncio.sleep(0.1)
        if served.engine.app.sent_bytes == said_bytes > WINDOW_BYTES:
            return said_bytes


async def test_the_application_waits_for_a_client_that_does_not_read_and_others_do_not(served: Served) -> None:
    with served.connection(do("flood 10000"), RESPONSES) as client, served.connection(do("flood 50000"), RESPONSES):
        await begun(served, 2)
        said_bytes = await standing_still(served)
        assert said_bytes < 2 * BEHIND_BYTES
        size = 3 * WINDOW_BYTES + 256
        answer = await served.http.post(RESPONSES, json=do(f"huge {size}"))
        assert len(answer.content) == size
        body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 20}
        assert (await served.http.post(CHAT, json=body)).status_code == 200
        for _ in range(200):
            await received(client)
        async with asyncio.timeout(5.0):
            while await standing_still(served) == said_bytes:
                await received(client)
    await until(lambda: served.engine.app.left == ["flood", "flood"])


async def test_a_call_that_fails_before_it_says_anything_is_a_500(served: Served) -> None:
    answer = await served.http.post(RESPONSES, json=do("fail"))
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")


async def test_a_router_that_is_lost_takes_its_calls_along(fresh: Served) -> None:
    asking = asyncio.ensure_future(fresh.http.post(RESPONSES, json=do("wait")))
    await begun(fresh)
    fresh.lane.close()
    await until(lambda: fresh.engine.app.left == ["wait"])
    await until(lambda: fresh.engine.unfinished == 0)
    asking.cancel()
    await asyncio.wait([asking])
    fresh.lane.replicas.clear()


async def test_a_call_of_a_lost_engine_is_made_again_while_nothing_was_said(fresh: Served) -> None:
    asking = asyncio.ensure_future(fresh.http.post(RESPONSES, json=do("wait")))
    await begun(fresh)
    fresh.engine.close()
    await until(lambda: fresh.lane.retries == 1)
    fresh.add(other := FakeEngine())
    await other.until(lambda: bool(other.calls))
    assert other.calls[0].attempt == 1
    asking.cancel()
    await other.until(lambda: other.app.left == ["wait"])


async def test_a_stream_of_a_lost_engine_ends_with_an_error_event(tokenizer_folder: Path) -> None:
    async with (
        serve(tokenizer_folder, FakeEngine()) as served,
        served.http.stream("POST", RESPONSES, json=do("ticked")) as answer,
    ):
        parts = answer.aiter_raw()
        assert await anext(parts) == b"data: 0\n\n"
        served.engine.close()
        rest = b"".join([part async for part in parts])
        error, done, end = rest.strip(b"\n").partition(b"\n\ndata: [DONE]")
        assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "engine_error"
        assert (done, end) == (b"\n\ndata: [DONE]", b"")


async def test_an_engine_that_drains_finishes_its_calls(fresh: Served) -> None:
    async with fresh.http.stream("POST", RESPONSES, json=do("ticked")) as answer:
        events = answer.aiter_raw()
        await anext(events)
        fresh.engine.drain()
        await until(lambda: not fresh.lane.ready())
        await fresh.engine.app.tick()
        assert await anext(events) == b"data: 1\n\n"
