"""Is what goes beyond a limit refused with the field, its value and what is allowed, and does nobody wait for ever?"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from deployments.fleet import Limits, RouterSettings
from tests.deployments.fake_engine import FakeEngine
from tests.deployments.http_served import MODEL, Served, events, serve, until

pytestmark = pytest.mark.anyio

CHAT, TEXT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
HELLO = {"messages": [{"role": "user", "content": "hello"}]}
SMALL = Limits(body_bytes=2000, head_bytes=1000, prompt_tokens=30, max_tokens=50, n=3, stop_strings=2)
QUICK = Limits(head_s=0.2, body_s=0.2)


@pytest.fixture(scope="module")
async def served(tokenizer_folder: Path) -> AsyncIterator[Served]:
    async with serve(tokenizer_folder, FakeEngine(), settings=RouterSettings(limits=SMALL)) as served:
        yield served


@asynccontextmanager
async def limited(folder: Path, engine: FakeEngine, **limits: Any) -> AsyncIterator[Served]:
    async with serve(folder, engine, settings=RouterSettings(limits=Limits(**limits))) as served:
        yield served
        await until(lambda: served.lane.open_requests() == 0)
        await until(lambda: engine.unfinished == 0)


@pytest.mark.parametrize(
    ("path", "fields", "param", "message"),
    [
        (CHAT, HELLO | {"max_tokens": 51}, "max_tokens", "is 51; this server takes 50 at most."),
        (CHAT, HELLO | {"max_completion_tokens": 51}, "max_completion_tokens", "is 51; this server takes 50 at most."),
        (CHAT, HELLO | {"n": 4}, "n", "is 4; this server takes 3 at most."),
        (CHAT, HELLO | {"stop": ["a", "b", "c"]}, "stop", "holds 3 strings; this server takes 2 at most."),
        (CHAT, HELLO | {"max_tokens": 51, "logprobs": True}, "max_tokens", "is 51; this server takes 50 at most."),
        (CHAT, HELLO | {"n": 10**30}, "n", f"is {10**30}; this server takes 3 at most."),
        (TEXT, {"prompt": "x" * 40}, "prompt", "has 41 tokens; this server takes 30 at most."),
        (CHAT, {"messages": [{"role": "user", "content": "x" * 40}]}, "messages", "this server takes 30 at most."),
        (TEXT, {"prompt": "x", "n": 4, "echo": True}, "n", "is 4; this server takes 3 at most."),
        (RESPONSES, {"max_output_tokens": 51}, "max_output_tokens", "is 51; this server takes 50 at most."),
    ],
)
async def test_a_field_beyond_its_limit_is_named_with_what_is_allowed(
    served: Served, path: str, fields: dict[str, Any], param: str, message: str
) -> None:
    answer = await served.http.post(path, json={"model": MODEL} | fields)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["message"].startswith(f"'{param}' ")
    assert error["message"].endswith(message)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, "limit_exceeded")
    assert not served.engine.calls


async def test_anthropic_s_stop_list_is_limited_too(served: Served) -> None:
    body = {"model": MODEL, "max_tokens": 5, "stop_sequences": ["a", "b", "c"]}
    answer = await served.http.post(MESSAGES, json=body)
    assert answer.status_code == 400
    assert "'stop_sequences' holds 3 strings" in answer.json()["error"]["message"]


async def test_what_just_fits_is_taken(served: Served) -> None:
    body = {"model": MODEL, "prompt": "x" * 29, "max_tokens": 50, "n": 3, "stop": ["never", "this"]}
    answer = await served.http.post(TEXT, json=body)
    assert answer.json()["usage"]["completion_tokens"] == 150


async def test_an_answer_without_a_length_gets_the_longest_that_is_allowed(served: Served) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
    assert (await served.http.post(CHAT, json=body)).json()["usage"]["completion_tokens"] == 50
    assert (await served.http.post(TEXT, json={"model": MODEL, "prompt": "x"})).json()["usage"][
        "completion_tokens"
    ] == 16


async def test_bodies_and_heads_have_the_sizes_that_the_fleet_says(served: Served) -> None:
    answer = await served.http.post(CHAT, json=HELLO | {"model": MODEL, "user": "x" * 2000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    answer = await served.http.get("/health", headers={"cookie": "x" * 1000})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "The head of the request is longer than 1000 bytes."


async def read_to_end(served: Served, sent: bytes) -> bytes:
    """What comes back until the server closes, from a client that then sends no more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(sent)
    async with asyncio.timeout(5.0):
        answer = await reader.read()
    writer.close()
    return answer


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"GET /hea", "The head of the request was not complete after 0.2 s."),
        (b"GET /health HTTP/1.1\r\nhost: x\r\n", "The head of the request was not complete after 0.2 s."),
        (HEAD, "The body was not complete 0.2 s after the head of the request."),
        (HEAD + b'{"model":', "The body was not complete 0.2 s after the head of the request."),
    ],
    ids=["path", "headers", "no body", "half a body"],
)
async def test_who_sends_too_slowly_is_told_so_and_let_go(tokenizer_folder: Path, sent: bytes, said: str) -> None:
    async with serve(tokenizer_folder, FakeEngine(), settings=RouterSettings(limits=QUICK)) as served:
        head, _, body = (await read_to_end(served, sent)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in head
    error = json.loads(body)["error"]
    assert (error["message"], error["code"]) == (said, "request_timeout")


async def test_who_says_nothing_is_let_go_without_a_word(tokenizer_folder: Path) -> None:
    async with serve(tokenizer_folder, FakeEngine(), settings=RouterSettings(limits=QUICK)) as served:
        assert await read_to_end(served, b"") == b""


async def test_a_dribble_of_bytes_does_not_buy_more_time(tokenizer_folder: Path) -> None:
    async with serve(tokenizer_folder, FakeEngine(), settings=RouterSettings(limits=QUICK)) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        health = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
        writer.write(health)
        await reader.readuntil(b'{"status":"ok"}')

        async def dribble() -> None:
            while True:
                writer.write(b"\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)

        dribbling = asyncio.ensure_future(dribble())
        async with asyncio.timeout(5.0):
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        dribbling.cancel()
        writer.close()


async def test_hundreds_of_slow_clients_keep_nobody_out(tokenizer_folder: Path) -> None:
    """Each holds what it has until its time is over, 30 s or more; others are answered meanwhile."""
    async with serve(tokenizer_folder, FakeEngine()) as served:
        slow = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(300)]
        for number, (_, writer) in enumerate(slow):
            writer.write((b"GET /hea", b"GET /health HTTP/1.1\r\nhost: x\r\n", HEAD + b'{"model":')[number % 3])
            await writer.drain()
        answer = await served.http.post(CHAT, json=HELLO | {"model": MODEL, "max_tokens": 3})
        assert answer.json()["usage"]["completion_tokens"] == 3
        assert not any(reader.at_eof() for reader, _ in slow)
        for _, writer in slow:
            writer.close()


async def test_an_idle_connection_is_kept_and_a_long_answer_is_no_slow_request(tokenizer_folder: Path) -> None:
    limits = Limits(head_s=0.1, body_s=0.1)
    async with serve(tokenizer_folder, FakeEngine(), settings=RouterSettings(limits=limits)) as served:
        served.engine.stall()
        body = json.dumps(HELLO | {"model": MODEL, "max_tokens": 5}).encode()
        ask = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        for _ in range(2):
            writer.write(ask)
            await served.engine.until(lambda: bool(served.engine.unfinished))
            slow = b"GET /hea"
            assert b" 408 " in await read_to_end(served, slow), "the time is over for others"
            served.engine.go()
            await reader.readuntil(b"}}}")
            assert b" 408 " in await read_to_end(served, slow)
            served.engine.stall()
        writer.close()


async def test_more_requests_than_a_router_answers_at_once_are_sent_away(tokenizer_folder: Path) -> None:
    async with limited(tokenizer_folder, FakeEngine(), open_requests=2) as served:
        served.engine.stall()
        body = {"model": MODEL, **HELLO, "max_tokens": 5}
        with served.connection(body), served.connection(body | {"stream": True}):
            await until(lambda: served.lane.open_requests() == 2)
            answer = await served.http.post(CHAT, json=body)
            assert answer.status_code == 503
            error = answer.json()["error"]
            assert error["message"] == "This server answers 2 requests, as many as it takes at once."
            assert (error["type"], error["code"]) == ("server_error", "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
            assert (await served.http.get("/ready")).status_code == 200
        await until(lambda: served.lane.open_requests() == 0)
        served.engine.go()
        assert (await served.http.post(CHAT, json=body)).status_code == 200


async def test_a_stream_that_does_not_begin_ends(tokenizer_folder: Path) -> None:
    async with limited(tokenizer_folder, FakeEngine(), first_token_s=0.1) as served:
        served.engine.stall()
        answer = await served.http.post(CHAT, json={"model": MODEL, **HELLO, "stream": True})
        assert answer.status_code == 504
        error = answer.json()["error"]
        assert error["message"] == "No token came within 0.1 s of the request, the longest that this server waits."
        assert error["code"] == "timeout"


async def test_a_stream_that_falls_silent_ends_after_what_it_said(tokenizer_folder: Path) -> None:
    async with limited(tokenizer_folder, FakeEngine(), between_tokens_s=0.2) as served:
        served.engine.stall()
        body = {"model": MODEL, **HELLO, "stream": True, "max_tokens": 30}
        asking = asyncio.ensure_future(served.http.post(CHAT, json=body))
        await served.engine.until(lambda: served.engine.unfinished == 1)
        for _ in range(8):
            served.engine.step_once()
        *chunks, last = events((await asking).text)
        said = await served.said("hello", 8)
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == said.text
        assert last["error"]["message"] == "No token came for 0.2 s, the longest that this server waits."


async def test_a_client_that_reads_slowly_is_not_taken_for_a_silent_engine(tokenizer_folder: Path) -> None:
    async with limited(tokenizer_folder, FakeEngine(step_s=[0.003]), between_tokens_s=0.5) as served:
        body = HELLO | {"stream": True, "max_tokens": 400}
        with served.connection(body) as client:
            await served.engine.until(lambda: served.engine.steps >= 400)  # which takes longer than 0.5 s
            loop, said = asyncio.get_running_loop(), b""
            while b"data: [DONE]" not in said:
                said += await loop.sock_recv(client, 1 << 16)
        assert b'"finish_reason":"length"' in said
        assert b'"error"' not in said


async def test_what_is_not_streamed_has_the_whole_time(tokenizer_folder: Path) -> None:
    async with limited(
        tokenizer_folder, FakeEngine(step_s=[0.02]), first_token_s=0.05, between_tokens_s=0.05
    ) as served:
        body = {"model": MODEL, **HELLO, "max_tokens": 10}
        assert (await served.http.post(CHAT, json=body)).status_code == 200
