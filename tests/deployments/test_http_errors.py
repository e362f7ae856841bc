"""What does a client hear when something is wrong: with its request, with the load, or with an engine?"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from deployments.fleet import Limits, RouterSettings
from tests.deployments.fake_engine import CACHED_TOKENS, CONTEXT_TOKENS, FakeEngine
from tests.deployments.http_served import MODEL, Served, events, serve, until

pytestmark = pytest.mark.anyio

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
BODY_BYTES = Limits().body_bytes
HELLO = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
async def served(tokenizer_folder: Path) -> AsyncIterator[Served]:
    async with serve(tokenizer_folder, FakeEngine()) as served:
        yield served
        assert not served.engine.submits, "nothing that is refused reaches an engine"
        assert served.lane.open_requests() == 0


def error_of(answer: Any, status: int) -> dict[str, Any]:
    """The error in OpenAI's shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    return body["error"]


async def read_into(read: list[str], served: Served) -> None:
    """What a program sees that reads a stream with the official client."""
    stream = await served.openai.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hello"}], max_tokens=50, stream=True
    )
    async for chunk in stream:
        read.append(chunk.choices[0].delta.content or "")


@pytest.mark.parametrize(
    ("path", "body", "message", "param", "code"),
    [
        (
            CHAT,
            HELLO | {"messages": [{"role": "tool", "content": "x"}]},
            "no tools here",
            "messages",
            None,
        ),
        (
            CHAT,
            HELLO | {"max_tokens": CONTEXT_TOKENS},
            f"holds {CONTEXT_TOKENS} tokens; the prompt has",
            "max_tokens",
            "context_length_exceeded",
        ),
        (
            CHAT,
            HELLO | {"messages": [{"role": "user", "content": "x" * CONTEXT_TOKENS}]},
            f"holds {CONTEXT_TOKENS} tokens; the prompt has",
            "messages",
            "context_length_exceeded",
        ),
        (
            TEXT,
            {"model": MODEL, "prompt": "x" * CONTEXT_TOKENS},
            f"holds {CONTEXT_TOKENS} tokens; the prompt has",
            "prompt",
            "context_length_exceeded",
        ),
        (TEXT, {"model": MODEL, "prompt": [[]]}, "The prompt is empty.", "prompt", None),
    ],
)
async def test_a_wrong_request_is_refused_with_its_reason(
    served: Served, path: str, body: Any, message: str, param: str | None, code: str | None
) -> None:
    error = error_of(await served.http.post(path, json=body), 400)
    assert message in error["message"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)


async def test_a_wrong_request_is_refused_the_same_way_when_it_wants_a_stream(served: Served) -> None:
    error = error_of(await served.http.post(CHAT, json=HELLO | {"stream": True, "max_tokens": CONTEXT_TOKENS}), 400)
    assert error["param"] == "max_tokens"


async def test_an_unknown_model_is_not_found_and_the_known_ones_are_named(served: Served) -> None:
    error = error_of(await served.http.post(CHAT, json=HELLO | {"model": "big"}), 404)
    assert error["message"] == "The model 'big' does not exist. This server has: tiny."
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    with pytest.raises(openai.NotFoundError):
        await served.openai.models.retrieve("big")


async def test_unknown_routes_and_wrong_methods_are_told_apart(served: Served) -> None:
    unknown = error_of(await served.http.get("/v1/nothing"), 404)
    assert "There is no GET /v1/nothing here. Routes: /v1/chat/completions" in unknown["message"]
    answer = await served.http.get(CHAT)
    wrong = error_of(answer, 405)
    assert wrong["message"] == "/v1/chat/completions takes POST, not GET."
    assert answer.headers["allow"] == "POST"


async def test_an_oversized_body_is_refused_and_the_connection_survives(served: Served) -> None:
    error = error_of(await served.http.post(CHAT, content=b" " * (BODY_BYTES + 1)), 413)
    assert (error["message"], error["code"]) == (
        f"The body is larger than {BODY_BYTES} bytes.",
        "body_too_large",
    )
    assert (await served.http.get("/health")).status_code == 200


async def test_a_full_queue_answers_503_with_the_time_to_come_back(tokenizer_folder: Path) -> None:
    async with serve(tokenizer_folder, FakeEngine(slots=0), max_queued_requests=2) as served:
        with served.connection(HELLO), served.connection(HELLO):
            await until(lambda: served.lane.queued_requests == 2)
            answer = await served.http.post(CHAT, json=HELLO)
        error = error_of(answer, 503)
        assert (error["type"], error["code"]) == ("server_error", "overloaded")
        assert int(answer.headers["retry-after"]) >= 1


async def test_prompts_that_do_not_all_fit_the_queue_leave_none_behind(tokenizer_folder: Path) -> None:
    async with serve(tokenizer_folder, FakeEngine(slots=0), max_queued_requests=2) as served:
        answer = await served.http.post(TEXT, json={"model": MODEL, "prompt": ["a", "b", "c"]})
        assert error_of(answer, 503)["code"] == "overloaded"
        await until(lambda: served.lane.open_requests() == 0)


async def test_a_router_that_drains_is_not_ready_and_answers_what_still_comes(tokenizer_folder: Path) -> None:
    async with serve(tokenizer_folder, FakeEngine()) as served:
        served.api.draining = True
        ready = await served.http.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "draining")
        assert (await served.http.post(CHAT, json=HELLO)).status_code == 200


async def test_an_answer_that_takes_longer_than_the_longest_ends_with_an_error(tokenizer_folder: Path) -> None:
    settings = RouterSettings(longest_stream_s=0.3)
    async with serve(tokenizer_folder, FakeEngine(step_s=[0.01]), settings=settings) as served:
        long = HELLO | {"max_tokens": 4000}
        refused = error_of(await served.http.post(CHAT, json=long), 504)
        assert refused["message"].startswith("The answer was not complete 0.3 s after the request")
        *chunks, last = events((await served.http.post(CHAT, json=long | {"stream": True})).text)
        assert len(chunks) > 5
        assert last["error"]["message"] == refused["message"]
        await until(lambda: served.engine.unfinished == 0)


async def test_a_request_that_no_engine_takes_ends_with_the_longest_time(tokenizer_folder: Path) -> None:
    async with serve(tokenizer_folder, FakeEngine(slots=0), settings=RouterSettings(longest_stream_s=0.1)) as served:
        error_of(await served.http.post(CHAT, json=HELLO), 504)
        await until(lambda: served.lane.open_requests() == 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_engine_refuses_is_a_400_in_its_words(tokenizer_folder: Path, stream: bool) -> None:
    async with serve(tokenizer_folder, FakeEngine(refuse="temperature must be >= 0")) as served:
        error = error_of(await served.http.post(CHAT, json=HELLO | {"stream": stream}), 400)
        assert error["message"] == "temperature must be >= 0"
        assert (error["type"], error["param"]) == ("invalid_request_error", "temperature")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_fails_before_the_first_token_is_a_503(tokenizer_folder: Path, stream: bool) -> None:
    async with serve(tokenizer_folder, FakeEngine(fail_after=0)) as served:
        error = error_of(await served.http.post(CHAT, json=HELLO | {"stream": stream}), 503)
        assert error["message"] == "EngineDeadError: it broke"
        assert (error["type"], error["code"]) == ("server_error", "engine_error")


async def test_an_engine_that_fails_later_ends_the_stream_with_an_error_event(tokenizer_folder: Path) -> None:
    async with serve(tokenizer_folder, FakeEngine(step_s=[0.02], fail_after=10)) as served:
        said = await served.said("hello", 10)
        answer = await served.http.post(CHAT, json=HELLO | {"stream": True, "max_tokens": 50})
        *chunks, last = events(answer.text)
        assert answer.status_code == 200
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert text == said.text
        assert last["error"]["message"] == "EngineDeadError: it broke"

        read: list[str] = []
        with pytest.raises(openai.APIError, match="it broke"):
            await read_into(read, served)
        assert "".join(read) == said.text
        assert (await served.metrics())['headrace_requests_total{model="tiny",outcome="failed"}'] == 2


async def test_an_engine_that_leaves_before_the_first_token_is_not_noticed(tokenizer_folder: Path) -> None:
    async with serve(tokenizer_folder, FakeEngine()) as served:
        served.engine.stall()
        body = HELLO | {"stream": True, "max_tokens": 30}
        asking = asyncio.ensure_future(served.http.post(CHAT, json=body))
        await served.engine.until(lambda: bool(served.engine.submits))
        served.engine.close()
        await until(lambda: served.lane.retries == 1)
        served.add(FakeEngine())
        text = "".join(event["choices"][0]["delta"].get("content", "") for event in events((await asking).text))
        assert text == (await served.said("hello", 30)).text


async def test_an_engine_that_leaves_in_mid_stream_is_not_noticed(tokenizer_folder: Path) -> None:
    async with serve(tokenizer_folder, FakeEngine(step_s=[0.001])) as served:
        options = {"stream_options": {"include_usage": True}}
        body = HELLO | {"stream": True, "max_tokens": 300} | options
        async with served.http.stream("POST", CHAT, json=body) as answer:
            parts = answer.aiter_text()
            received = await anext(parts)
            served.engine.close()
            await until(lambda: not served.lane.replicas)
            served.add(FakeEngine())
            received += "".join([part async for part in parts])
        *chunks, last = events(received)
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert text == (await served.said("hello", 300)).text
        assert {chunk["id"] for chunk in chunks} == {last["id"]}
        assert [chunk["choices"][0]["delta"].get("role") for chunk in chunks[:2]] == ["assistant", None]
        prompt_tokens = len(await served.chat_ids("hello"))
        assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (prompt_tokens, 300)
        assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": CACHED_TOKENS}
        assert (await served.metrics())['headrace_continuations_total{model="tiny"}'] == 1


async def test_a_stream_that_can_t_be_continued_ends_with_an_error_event(tokenizer_folder: Path) -> None:
    async with serve(tokenizer_folder, FakeEngine(step_s=[0.01])) as served:
        body = HELLO | {"stream": True, "max_tokens": 1000, "seed": 1}
        async with served.http.stream("POST", CHAT, json=body) as answer:
            parts = answer.aiter_text()
            received = await anext(parts)
            served.engine.close()
            received += "".join([part async for part in parts])
        last = events(received)[-1]
        assert last["error"]["message"] == "The replica that ran this request was lost (said goodbye)."
        assert served.lane.open_requests() == 0
