"""Does a connection hold to its limits, and hear of its client's end, whatever else the client sends?"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from deployments.fleet import Limits
from tests.deployments.fake_engine import FakeEngine
from tests.deployments.http_served import MODEL, Served, serve, until

pytestmark = pytest.mark.anyio

HEAD_BYTES = Limits().head_bytes
HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture(scope="module")
async def served(tokenizer_folder: Path) -> AsyncIterator[Served]:
    async with serve(tokenizer_folder, FakeEngine(slots=4)) as served:
        yield served
        await until(lambda: served.lane.open_requests() == 0)
        await until(lambda: served.engine.unfinished == 0)


def post(path: str, body: object, *more: str) -> bytes:
    content = json.dumps(body).encode()
    head = (f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(content)}", *more)
    return "\r\n".join([*head, "", ""]).encode() + content


def chat(stream: bool = True, max_tokens: int = 4000) -> bytes:
    messages = [{"role": "user", "content": "hello"}]
    return post(
        "/v1/chat/completions", {"model": MODEL, "messages": messages, "stream": stream, "max_tokens": max_tokens}
    )


async def connect(served: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", served.port)


async def read_to_end(served: Served, *sent: bytes) -> bytes:
    """What comes back until the server closes."""
    reader, writer = await connect(served)
    answer = b""
    with closing(writer), suppress(ConnectionError):  # it may close before everything was sent
        async with asyncio.timeout(5.0):
            for piece in sent:
                writer.write(piece)
                await writer.drain()
            answer = await reader.read()
    return answer


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("behind", [HEALTH, chat(), b"\r\n\r\n", b"garbage"])
async def test_a_client_that_leaves_is_noticed_whatever_it_sent_behind(
    served: Served, stream: bool, behind: bytes
) -> None:
    served.engine.forget()
    for apart in (False, True):
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(chat(stream) if apart else chat(stream) + behind)
            await served.engine.until(lambda: served.engine.unfinished == 1)
            if apart:
                client.sendall(behind)
        await served.engine.until(lambda: served.engine.unfinished == 0)
    assert len(served.engine.cancels) == len(served.engine.submits) == 2


async def test_a_request_sent_ahead_of_an_answer_does_not_spoil_it_and_the_connection_closes(served: Served) -> None:
    answer = await read_to_end(served, chat(stream=False, max_tokens=20) + HEALTH)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert json.loads(body)["choices"][0]["finish_reason"] == "length"


async def test_requests_one_after_the_other_share_a_connection(served: Served) -> None:
    reader, writer = await connect(served)
    for empty in (b"", b"\r\n", b"\r\n\r\n"):
        writer.write(empty + HEALTH)
        answer = await reader.readuntil(b'{"status":"ok"}')
        assert answer.startswith(b"HTTP/1.1 200 OK")
    writer.close()


CHUNKED = b"POST /tokenize HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"
HEAD_TAKEN = b"GET /health HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("beginning", "more"),
    [
        (b"GET /", b"x"),
        (HEAD_TAKEN + b"host: ", b"x"),
        (HEAD_TAKEN, b"a: b\r\n"),
        (b"", b"\r\n"),
        (CHUNKED + b"0\r\n", b"a: b\r\n"),
        (CHUNKED + b"2;", b"x"),
    ],
    ids=["path", "one header", "headers", "empty lines", "trailer", "chunk extension"],
)
async def test_a_head_without_an_end_is_refused(served: Served, beginning: bytes, more: bytes) -> None:
    answer = await read_to_end(served, beginning, *[more * (HEAD_BYTES // 4)] * 20)
    assert answer.startswith(b"HTTP/1.1 400 ") or answer == b""


async def test_a_long_head_within_the_limit_is_taken(served: Served) -> None:
    cookie = b"cookie: " + b"x" * (HEAD_BYTES // 2) + b"\r\n"
    answer = await read_to_end(served, b"GET /health HTTP/1.1\r\nconnection: close\r\n" + cookie + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")


async def test_a_body_is_no_part_of_the_head(served: Served) -> None:
    body = {"model": MODEL, "do": "status 201", "more": "x" * (3 * HEAD_BYTES)}
    answer = await read_to_end(served, post("/tokenize", body, "connection: close"))
    assert answer.startswith(b"HTTP/1.1 201 ")


async def test_a_client_that_asks_for_another_protocol_is_answered_in_this_one(served: Served) -> None:
    upgrade = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n"
    answer = await read_to_end(served, b"GET /health HTTP/1.1\r\nhost: x\r\n" + upgrade)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer, "it could not read another request"


async def test_a_body_that_would_be_lost_to_an_upgrade_is_refused(served: Served) -> None:
    """Java's own client asks for one by default; uvicorn would answer as if there were no body."""
    served.engine.forget()
    upgrade = ("connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__")
    answer = await read_to_end(served, post("/tokenize", {"model": MODEL}, *upgrade))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"may not ask for an upgrade." in answer
    assert not served.engine.calls
