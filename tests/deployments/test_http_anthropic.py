"""Does Anthropic's client understand each refusal of ours, and the end of a stream whose engine is lost?"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from deployments.fleet import Limits
from tests.deployments.fake_engine import FakeEngine
from tests.deployments.http_served import MODEL, Served, serve, until

pytestmark = pytest.mark.anyio

ASK: dict[str, Any] = {"model": MODEL, "max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
async def served(tokenizer_folder: Path) -> AsyncIterator[Served]:
    async with serve(tokenizer_folder, FakeEngine()) as served:
        yield served
        assert not served.engine.calls, "nothing that is refused reaches an engine"


@contextlib.asynccontextmanager
async def client_of(served: Served) -> AsyncIterator[anthropic.AsyncAnthropic]:
    url = f"http://127.0.0.1:{served.port}"
    async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "kind", "name", "words"),
    [
        ({"model": "big"}, anthropic.NotFoundError, "not_found_error", "The model 'big' does not exist"),
        ({"extra_body": {"priority": 1}}, anthropic.BadRequestError, "invalid_request_error", "'priority' is set by"),
    ],
)
async def test_a_refusal_is_the_client_s_own_error(
    served: Served, fields: dict[str, Any], kind: type[anthropic.APIStatusError], name: str, words: str, stream: bool
) -> None:
    async with client_of(served) as client:
        with pytest.raises(kind, match=words) as refused:
            await client.messages.create(**ASK | fields, stream=stream)
    assert (refused.value.type, refused.value.api_message) == (name, refused.value.body["error"]["message"])
    assert refused.value.body.keys() == {"type", "error"}


async def test_tokens_of_an_unknown_model_are_not_counted(served: Served) -> None:
    async with client_of(served) as client:
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.count_tokens(model="big", messages=ASK["messages"])


async def test_routes_methods_and_bodies_are_refused_in_the_same_shape(served: Served) -> None:
    answers = {
        "not_found_error": await served.http.post("/v1/messages/batches", json={}),
        "invalid_request_error": await served.http.get("/v1/messages"),
        "request_too_large": await served.http.post("/v1/messages", content=b" " * (Limits().body_bytes + 1)),
    }
    for name, answer in answers.items():
        assert answer.json().keys() == {"type", "error"}
        assert answer.json()["error"].keys() == {"type", "message"}
        assert (answer.json()["type"], answer.json()["error"]["type"]) == ("error", name)
    assert [answer.status_code for answer in answers.values()] == [404, 405, 413]


async def test_a_full_queue_is_an_overload_with_the_time_to_come_back(tokenizer_folder: Path) -> None:
    async with serve(tokenizer_folder, FakeEngine(slots=0), max_queued_requests=1) as served:
        with served.connection({"do": "wait"}, "/v1/messages"):
            await until(lambda: served.lane.queued_requests == 1)
            async with client_of(served) as client:
                with pytest.raises(anthropic.APIStatusError) as refused:
                    await client.messages.create(**ASK)
    assert (refused.value.status_code, refused.value.type) == (503, "overloaded_error")
    assert int(refused.value.response.headers["retry-after"]) >= 1


async def test_a_stream_of_a_lost_engine_ends_with_the_client_s_own_error(tokenizer_folder: Path) -> None:
    async with serve(tokenizer_folder, FakeEngine()) as served, client_of(served) as client:
        stream = await client.messages.create(**ASK, stream=True, extra_body={"do": "ticked"})
        raw = stream.response.aiter_raw()
        assert await anext(raw) == b"data: 0\n\n"
        served.engine.close()
        rest = b"".join([part async for part in raw])
    assert rest.strip() == (
        b'event: error\ndata: {"type":"error","error":{"type":"api_error",'
        b'"message":"The replica that ran this request was lost (said goodbye)."}}'
    )


async def test_the_client_raises_for_an_error_within_a_stream(tokenizer_folder: Path) -> None:
    async with serve(tokenizer_folder, FakeEngine()) as served, client_of(served) as client:
        stream = await client.messages.create(**ASK, stream=True, extra_body={"do": "ticked"})
        served.engine.close()
        with pytest.raises(anthropic.APIStatusError, match="was lost") as lost:
            async for _ in stream:
                pass
    assert lost.value.type == "api_error"
