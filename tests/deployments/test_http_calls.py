"""Is a request for vLLM's own application answered as the application answered it, and ended with its client?"""

import asyncio
import hashlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deployments.fleet import RouterSettings
from deployments.forward import ROUTES, anthropic
from deployments.frames import WINDOW_BYTES
from deployments.vllm_app import CHUNK_BYTES
from tests.deployments.fake_engine import FakeEngine
from tests.deployments.http_served import MODEL, Served, serve, until

pytestmark = pytest.mark.anyio

CHAT, TEXT, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"


@pytest.fixture(scope="module")
async def shared(tokenizer_folder: Path) -> AsyncIterator[Served]:
    async with serve(tokenizer_folder, FakeEngine(slots=4)) as served:
        yield served


@pytest.fixture
async def served(shared: Served) -> AsyncIterator[Served]:
    """A server that must have nothing left at the end, whatever its clients did."""
    shared.engine.forget()
    yield shared
    await until(lambda: shared.lane.open_requests() == 0)
    await until(lambda: shared.engine.unfinished == 0)
    assert shared.lane.queued_tokens == 0
    assert not (await shared.metrics()).get('headrace_open_requests{model="tiny"}')


@pytest.fixture
async def fresh(tokenizer_folder: Path) -> AsyncIterator[Served]:
    """A server that a test may break."""
    async with serve(tokenizer_folder, FakeEngine(slots=4)) as served:
        yield served


def do(what: str, **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "do": what, **fields}


async def received(client: socket.socket) -> bytes:
    async with asyncio.timeout(5.0):
        return await asyncio.get_running_loop().sock_recv(client, 1 << 16)


async def begun(served: Served, calls: int = 1) -> None:
    await served.engine.until(lambda: len(served.engine.calls) == calls)


@pytest.mark.parametrize("path", ROUTES)
async def test_every_route_reaches_the_application_with_the_body_as_it_was(served: Served, path: str) -> None:
    body = b'{"model" : "tiny", "odd": [1e400, NaN, "\\ud800"] }'
    headers = {"content-type": "application/json", "x-vllm-priority": "-9", "authorization": "Bearer x"}
    answer = await served.http.post(f"{path}?dev=1", content=body, headers=headers)
    said = answer.json()
    assert (said["method"], said["path"], said["body"]) == ("POST", path, body.decode())
    assert said["headers"] == {"content-type": "application/json", "accept": "*/*"}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "x"}], "logprobs": True}),
        (CHAT, {"messages": [{"role": "user", "content": "x"}], "tools": [{}]}),
        (CHAT, {"messages": "wrong"}),
        (CHAT, {}),
        (TEXT, {"prompt": "x", "echo": True}),
        (TEXT, {"prompt": ["x", [1]]}),
        (TEXT, {"prompt": "x", "unknown": 1}),
    ],
)
async def test_what_the_fast_path_does_not_take_is_the_application_s(
    served: Served, path: str, fields: dict[str, Any]
) -> None:
    answer = await served.http.post(path, json={"model": MODEL} | fields)
    assert json.loads(answer.json()["body"]) == {"model": MODEL} | fields
    assert not served.engine.submits


async def test_every_chat_of_a_model_that_reasons_is_the_application_s(fresh: Served) -> None:
    fresh.desk.reasons = True
    answer = await fresh.http.post(CHAT, json={"model": MODEL, "messages": [{"role": "user", "content": "x"}]})
    assert answer.json()["path"] == CHAT
    answer = await fresh.http.post(TEXT, json={"model": MODEL, "prompt": "x"})
    assert answer.json()["object"] == "text_completion"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"{}", b'{"model":null}', b"\xff"])
async def test_with_one_model_a_body_need_not_name_it(served: Served, body: bytes) -> None:
    answer = await served.http.post(CHAT, content=body)
    assert answer.json()["body"].encode("latin-1") == body


async def test_with_several_models_a_body_must_name_one(served: Served) -> None:
    served.api._desks["other"] = served.desk
    try:
        for body in (b"{", b"{}", b'{"model":3}'):
            answer = await served.http.post(CHAT, content=body)
            assert answer.status_code == 400
            assert answer.json()["error"]["type"] == "invalid_request_error"
    finally:
        del served.api._desks["other"]
    assert not served.engine.calls


async def test_an_unknown_model_is_not_found_on_every_route(served: Served) -> None:
    for path in ROUTES:
        answer = await served.http.post(path, json={"model": "big", "do": "echo"})
        assert answer.status_code == 404
        error = answer.json()["error"]
        assert (error.get("code"), error["type"]) == (
            (None, "not_found_error") if anthropic(path) else ("model_not_found", "invalid_request_error")
        )
    assert not served.engine.calls


@pytest.mark.parametrize(
    "path",
    [
        "/start_profile", "/sleep", "/wake_up", "/pause", "/collective_rpc", "/v1/load_lora_adapter",
        "/scale_elastic_ep", "/docs", "/openapi.json", "/server_info", "/reset_prefix_cache", "/v1/responses/resp_1",
        "/v1/responses/resp_1/cancel", "/v1/chat/completions/", "//tokenize", "/v1/chat/completions/batch",
        "/inference/v1/generate", "/invocations", "/tokenizer_info", "/load", "/version",
    ],
)  # fmt: skip
async def test_operator_routes_are_unknown_here(served: Served, path: str) -> None:
    for method in ("GET", "POST"):
        answer = await served.http.request(method, path, json={"model": MODEL})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert not served.engine.calls


async def test_forwarded_routes_take_post_alone(served: Served) -> None:
    answer = await served.http.get("/tokenize")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("path", "fields", "name"),
    [
        (CHAT, {"priority": -1}, "priority"),
        (CHAT, {"messages": [{"role": "user", "content": "x"}], "request_id": "a"}, "request_id"),
        (TEXT, {"prompt": "x", "cache_salt": "other's"}, "cache_salt"),
        (RESPONSES, {"background": True}, "background"),
        (RESPONSES, {"store": True}, "store"),
        (CHAT, {"messages": [{"role": "user", "content": [{"image_url": "http://a.org"}]}]}, "messages"),
        ("/tokenize", {"chat_template": "x"}, "chat_template"),
    ],
)
async def test_a_field_that_is_the_router_s_is_refused_by_its_name(
    served: Served, path: str, fields: dict[str, Any], name: str
) -> None:
    answer = await served.http.post(path, json={"model": MODEL} | fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
    assert not served.engine.calls


@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
async def test_half_a_character_in_a_name_does_not_spoil_its_refusal(served: Served, path: str) -> None:
    answer = await served.http.post(path, content=b'{"model": "a\\ud800"}')
    assert answer.status_code == 404
    assert "The model 'a?' does not exist" in answer.json()["error"]["message"]
    answer = await served.http.post(path, content=b'{"model": "tiny", "\\udfff": [{"image_url": "http://a.org"}]}')
    assert answer.status_code == 400


async def test_a_fleet_may_allow_media_and_templates(tokenizer_folder: Path) -> None:
    settings = RouterSettings(allow_media_urls=True, allow_chat_templates=True)
    async with serve(tokenizer_folder, FakeEngine(), settings=settings) as served:
        answer = await served.http.post(
            CHAT, json=do("echo", chat_template="x", messages=[{"image_url": "http://a.org"}])
        )
        assert answer.status_code == 200


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
