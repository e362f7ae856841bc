"""Does a client get the answer that the engine gave, in the API's shape, streamed or not?"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deployments.fake_engine import CACHED_TOKENS, CONTEXT_TOKENS, FakeEngine, expected
from tests.deployments.http_served import MODEL, Served, events, serve, until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def served(tokenizer_folder: Path) -> AsyncIterator[Served]:
    async with serve(tokenizer_folder, FakeEngine(step_s=[0.0])) as served:
        yield served
        assert served.lane.open_requests() == 0
        await until(lambda: served.engine.unfinished == 0)


def ask(content: str, **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **fields}


async def test_a_chat_is_answered_whole(served: Served) -> None:
    answer = await served.openai.chat.completions.create(**ask("hello", max_tokens=40))
    said = await served.said("hello", 40)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", said.text)
    assert choice.finish_reason == said.finish == "length"
    assert (answer.object, answer.model) == ("chat.completion", MODEL)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(await served.chat_ids("hello"))
    assert answer.usage.completion_tokens == 40
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == CACHED_TOKENS


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 64, 300])
async def test_a_chat_streams_the_same_text(served: Served, max_tokens: int) -> None:
    stream = await served.openai.chat.completions.create(**ask("hello", max_tokens=max_tokens, stream=True))
    chunks = [chunk async for chunk in stream]
    choices = [chunk.choices[0] for chunk in chunks]
    said = await served.said("hello", max_tokens)
    assert "".join(choice.delta.content or "" for choice in choices) == said.text
    assert [choice.delta.role for choice in choices if choice.delta.role] == ["assistant"]
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["length"]
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert all(chunk.usage is None for chunk in chunks)


async def test_a_completion_is_answered_whole_and_streamed(served: Served) -> None:
    prompt = await served.desk.renderer.text("Once upon", add_special_tokens=True)
    said = expected(prompt, max_tokens=16)
    whole = await served.openai.completions.create(model=MODEL, prompt="Once upon")
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == (said.text, "length")
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (len(prompt), 16)
    stream = await served.openai.completions.create(model=MODEL, prompt="Once upon", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == said.text


async def test_prompts_may_be_token_ids_and_special_tokens_may_be_left_out(served: Served) -> None:
    ids = await served.desk.renderer.text("ab", add_special_tokens=False)
    body = {"model": MODEL, "max_tokens": 9}
    for prompt in ({"prompt": ids}, {"prompt": [ids]}, {"prompt": "ab", "add_special_tokens": False}):
        answer = (await served.http.post("/v1/completions", json=body | prompt)).json()
        assert answer["choices"][0]["text"] == expected(ids, max_tokens=9).text
        assert answer["usage"]["prompt_tokens"] == len(ids)


@pytest.mark.parametrize("stream", [False, True])
async def test_several_choices_of_several_prompts_come_in_order(served: Served, stream: bool) -> None:
    prompts = ["one", "another", "third"]
    body = {"model": MODEL, "prompt": prompts, "n": 2, "max_tokens": 20, "stream": stream}
    answer = await served.http.post("/v1/completions", json=body)
    texts = dict.fromkeys(range(6), "")
    for event in events(answer.text) if stream else [answer.json()]:
        for choice in event["choices"]:
            texts[choice["index"]] += choice["text"]
    ids = [await served.desk.renderer.text(prompt, add_special_tokens=True) for prompt in prompts]
    wanted = [expected(prompt, max_tokens=20, index=index).text for prompt in ids for index in (0, 1)]
    assert list(texts.values()) == wanted
    assert len(set(wanted)) == 6


@pytest.mark.parametrize("stream", [False, True])
async def test_several_choices_of_a_chat_come_apart(served: Served, stream: bool) -> None:
    answer = await served.http.post("/v1/chat/completions", json=ask("hi", n=3, max_tokens=20, stream=stream))
    texts = dict.fromkeys(range(3), "")
    for event in events(answer.text) if stream else [answer.json()]:
        for choice in event["choices"]:
            texts[choice["index"]] += choice["delta" if stream else "message"].get("content", "")
    assert texts == {index: (await served.said("hi", 20, index=index)).text for index in range(3)}


async def test_a_stop_string_ends_the_text_before_it(served: Served) -> None:
    stop = ["nowhere in it", "fließt"]
    said = await served.said("hello", 200, stop)
    assert (said.finish, said.stop) == ("stop", "fließt")
    body = ask("hello", max_tokens=200, stop=stop)
    choice = (await served.http.post("/v1/chat/completions", json=body)).json()["choices"][0]
    assert choice["message"]["content"] == said.text
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "fließt")
    streamed = events((await served.http.post("/v1/chat/completions", json=body | {"stream": True})).text)
    last = streamed[-1]["choices"][0]
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in streamed) == said.text
    assert (last["finish_reason"], last["stop_reason"]) == ("stop", "fließt")


async def test_usage_comes_last_in_a_stream_when_it_is_asked_for(served: Served) -> None:
    options = {"include_usage": True}
    stream = await served.openai.chat.completions.create(
        **ask("hello", max_tokens=30, stream=True, stream_options=options)
    )
    *chunks, last = [chunk async for chunk in stream]
    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 30
    assert last.usage.total_tokens == len(await served.chat_ids("hello")) + 30
    assert last.usage.prompt_tokens_details is not None
    assert last.usage.prompt_tokens_details.cached_tokens == CACHED_TOKENS


async def test_usage_so_far_comes_with_every_event_when_it_is_asked_for(served: Served) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = ask("hello", max_tokens=30, stream=True, stream_options=options)

    async def say_one_character() -> None:
        await served.engine.until(lambda: served.engine.unfinished == 1)
        for _ in range(4):  # it has four bytes at most
            served.engine.step_once()

    served.engine.stall()
    speaking = asyncio.ensure_future(say_one_character())
    async with served.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        parts = aiter(answer.aiter_text())
        said = await anext(parts)
        await speaking
        served.engine.go()
        said += "".join([part async for part in parts])
    counts = [event["usage"]["completion_tokens"] for event in events(said)]
    assert counts == sorted(counts)
    assert counts[0] <= 4
    assert counts[-1] == 30


async def test_a_stream_is_sent_as_server_sent_events(served: Served) -> None:
    answer = await served.http.post("/v1/chat/completions", json=ask("x", max_tokens=5, stream=True))
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.content.endswith(b"\n\ndata: [DONE]\n\n")
    assert "content-length" not in answer.headers


async def test_the_limit_is_the_newer_name_when_both_are_given(served: Served) -> None:
    answer = await served.openai.chat.completions.create(**ask("x", max_tokens=9, max_completion_tokens=5))
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5


async def test_many_clients_at_once_each_get_their_own_answer(served: Served) -> None:
    async def one(number: int) -> None:
        content = f"client {number}"
        body = ask(content, max_tokens=50 + number, stream=bool(number % 2))
        answer = await served.http.post("/v1/chat/completions", json=body)
        if number % 2:
            text = "".join(event["choices"][0]["delta"].get("content", "") for event in events(answer.text))
        else:
            text = answer.json()["choices"][0]["message"]["content"]
        assert text == (await served.said(content, 50 + number)).text

    await asyncio.gather(*[one(number) for number in range(40)])


async def test_models_are_listed_and_described(served: Served) -> None:
    (card,) = (await served.openai.models.list()).data
    assert (card.id, card.object, card.created) == (MODEL, "model", 1)
    assert await served.openai.models.retrieve(MODEL) == card
    assert (await served.http.get(f"/v1/models/{MODEL}")).json()["max_model_len"] == CONTEXT_TOKENS


async def test_health_and_readiness(tokenizer_folder: Path, served: Served) -> None:
    assert (await served.http.get("/health")).json() == {"status": "ok"}
    ready = await served.http.get("/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "models": {MODEL: "ready"}})
    async with serve(tokenizer_folder) as starting:
        ready = await starting.http.get("/ready")
        assert (ready.status_code, ready.json()) == (
            503,
            {"status": "starting", "models": {MODEL: "starting"}},
        )
    async with serve(tokenizer_folder, wakes=True) as asleep:
        ready = await asleep.http.get("/ready")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready", "models": {MODEL: "asleep"}})


async def test_a_request_waits_for_the_first_replica(tokenizer_folder: Path) -> None:
    async with serve(tokenizer_folder, wakes=True) as served:
        asking = asyncio.ensure_future(served.openai.chat.completions.create(**ask("hi", max_tokens=5)))
        await until(lambda: served.lane.queued_requests == 1)
        assert (await served.metrics())['headrace_queued_requests{model="tiny"}'] == 1
        served.add(FakeEngine())
        assert (await asking).choices[0].message.content == (await served.said("hi", 5)).text


async def test_metrics_count_requests_tokens_and_replicas(tokenizer_folder: Path) -> None:
    async with serve(tokenizer_folder, FakeEngine()) as served:
        for stream in (False, True):
            await served.http.post("/v1/chat/completions", json=ask("hi", max_tokens=7, stream=stream))
        await served.http.post("/v1/chat/completions", json={"do": "status 400"})
        seen = await served.metrics()
        prompt = len(await served.chat_ids("hi"))
    label = '{model="tiny"}'
    assert seen['headrace_requests_total{model="tiny",outcome="ok"}'] == 2
    assert seen['headrace_refusals_total{status="400"}'] == 1
    assert seen[f"headrace_output_tokens_total{label}"] == 14
    assert seen[f"headrace_prompt_tokens_total{label}"] == 2 * prompt
    assert seen[f"headrace_open_requests{label}"] == 0
    assert seen[f"headrace_time_to_first_token_seconds_count{label}"] == 2
    assert seen['headrace_replica_kv_tokens{model="tiny",replica="replica1"}'] == CONTEXT_TOKENS
    assert seen['headrace_replica_verified{model="tiny",replica="replica1"}'] == 1


async def test_a_connection_serves_many_requests(served: Served) -> None:
    limits = httpx.Limits(max_connections=1)
    url = str(served.http.base_url)
    async with httpx.AsyncClient(base_url=url, trust_env=False, limits=limits) as one:
        for number in range(5):
            body = ask("x", max_tokens=3, stream=bool(number % 2))
            assert (await one.post("/v1/chat/completions", json=body)).status_code == 200
