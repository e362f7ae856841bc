"""Over HTTP and real links: who gets which variant, what the answer says of it, and what no tenant ever gets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.fleet import Tenant
from tests.deployments.fake_engine import FakeEngine
from tests.deployments.http_served import CHAT, MODEL, TEXT, Served, do, events, serve, until

pytestmark = pytest.mark.anyio

VARIANT = "x-headrace-variant"
QUALITY = "x-headrace-min-quality"
PREFER = "x-headrace-prefer"


@asynccontextmanager
async def both(folder: Path, best: FakeEngine, cheap: FakeEngine, **more: Any) -> AsyncIterator[Served]:
    """A model and its variant w4, of quality 0.9."""
    async with serve(folder, best, variants={"w4": (0.9, cheap)}, **more) as served:
        yield served


def chat(content: str = "x", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 5} | fields


async def asked(served: Served, body: dict[str, Any], path: str = CHAT, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await served.http.post(path, json=body, headers=named)


async def variant(served: Served, body: dict[str, Any], path: str = CHAT, **headers: str) -> str:
    """Which one answered."""
    answer = await asked(served, body, path, **headers)
    assert answer.status_code == 200, answer.text
    return answer.headers[VARIANT]


async def test_the_best_answers_by_default_and_the_cheapest_who_prefers_cost(tokenizer_folder: Path) -> None:
    best, cheap = FakeEngine(), FakeEngine()
    async with both(tokenizer_folder, best, cheap) as served:
        assert await variant(served, chat()) == MODEL
        assert await variant(served, chat(service_tier="flex")) == "w4"
        assert await variant(served, chat(), x_headrace_prefer="cost") == "w4"
        assert await variant(served, chat(service_tier="flex"), x_headrace_prefer="best") == MODEL
        assert await variant(served, {"model": MODEL, "prompt": "x"}, TEXT, x_headrace_prefer="cost") == "w4"
        assert (len(best.submits), len(cheap.submits)) == (2, 3)


async def test_every_kind_of_answer_names_its_variant_and_the_model_that_was_asked(tokenizer_folder: Path) -> None:
    best, cheap = FakeEngine(), FakeEngine()
    async with both(tokenizer_folder, best, cheap) as served:
        cost = {PREFER: "cost"}
        whole = await served.http.post(CHAT, json=chat(), headers=cost)
        assert (whole.headers[VARIANT], whole.json()["model"]) == ("w4", MODEL)
        async with served.http.stream("POST", CHAT, json=chat(stream=True), headers=cost) as stream:
            assert stream.headers[VARIANT] == "w4"
            said = events((await stream.aread()).decode())
        assert {event["model"] for event in said} == {MODEL}
        call = await served.http.post("/v1/responses", json=do("echo"), headers=cost)
        assert call.headers[VARIANT] == "w4"
        assert len(cheap.calls) == 1


async def test_a_model_without_variants_says_nothing_of_them(tokenizer_folder: Path) -> None:
    async with serve(tokenizer_folder, FakeEngine()) as served:
        answer = await served.http.post(CHAT, json=chat(service_tier="flex"))
        assert (answer.status_code, VARIANT in answer.headers) == (200, False)
        assert "variants" not in (await served.http.get(f"/v1/models/{MODEL}")).json()


async def test_quality_is_never_below_what_tenant_or_request_asks(tokenizer_folder: Path) -> None:
    keys = {"high": "sk-high", "low": "sk-low"}
    tenants = [
        Tenant(name=name, key_hashes=[sha256(key.encode()).hexdigest()], min_quality=0.95 if name == "high" else 0.5)
        for name, key in keys.items()
    ]
    async with both(tokenizer_folder, FakeEngine(), FakeEngine(), tenants=tenants) as served:
        low, high = (f"Bearer {keys[name]}" for name in ("low", "high"))
        flex = chat(service_tier="flex")
        assert await variant(served, flex, authorization=low) == "w4"
        assert await variant(served, flex, authorization=low, x_headrace_min_quality="0.9") == "w4"
        assert await variant(served, flex, authorization=low, x_headrace_min_quality="0.91") == MODEL
        assert await variant(served, flex, authorization=high) == MODEL
        assert await variant(served, flex, authorization=high, x_headrace_min_quality="0.1") == MODEL


@pytest.mark.parametrize(
    ("header", "wrong"),
    [(QUALITY, "1.1"), (QUALITY, "-0.1"), (QUALITY, "nan"), (QUALITY, "good"), (PREFER, "fast"), (PREFER, "")],
)
async def test_a_header_that_says_nothing_possible_is_refused(served: Served, header: str, wrong: str) -> None:
    answer = await served.http.post(CHAT, json=chat(), headers={header: wrong})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, header)


async def test_under_overload_new_requests_go_to_the_cheaper_one_but_not_below_their_quality(
    tokenizer_folder: Path,
) -> None:
    best, cheap = FakeEngine(slots=1), FakeEngine()
    async with both(tokenizer_folder, best, cheap) as served:
        # The rate at which the queue empties is known once something left it.
        await asyncio.gather(*(asked(served, chat("warm")) for _ in range(3)))
        best.stall()
        stuck = [asyncio.ensure_future(asked(served, chat(f"stuck {n}" * 40), **{QUALITY: "1"})) for n in range(12)]
        await until(lambda: served.lane.queued_requests == 11)
        before = len(best.submits)
        assert await variant(served, chat("new")) == "w4"
        loyal = asyncio.ensure_future(asked(served, chat("new"), **{QUALITY: "0.95"}))
        await until(lambda: served.lane.queued_requests == 12)
        assert len(best.submits) == before
        best.go()
        answers = await asyncio.gather(*stuck, loyal)
        assert {answer.headers[VARIANT] for answer in answers} == {MODEL}
        metrics = await served.metrics()
        moved = f'headrace_variant_requests_total{{model="{MODEL}-w4",of="{MODEL}",variant="w4",why="overload"}}'
        assert metrics[moved] == 1.0


async def test_a_conversation_goes_on_where_it_began(tokenizer_folder: Path) -> None:
    best, cheap = FakeEngine(), FakeEngine()
    async with both(tokenizer_folder, best, cheap) as served:
        best.drain()
        await until(lambda: not served.lane.ready())
        began = chat("how are you?")
        assert await variant(served, began) == "w4"
        served.add(FakeEngine())
        await until(served.lane.ready)
        later = [*began["messages"], {"role": "assistant", "content": "well"}, {"role": "user", "content": "and now?"}]
        assert await variant(served, chat(messages=later)) == "w4"
        tools = chat(messages=later, tools=[], do="echo")
        assert await variant(served, tools) == "w4", "for vLLM's own application it is the same conversation"
        assert await variant(served, chat("another one")) == MODEL


async def test_where_none_that_is_allowed_serves_a_request_waits_for_the_best(tokenizer_folder: Path) -> None:
    best, cheap = FakeEngine(), FakeEngine()
    async with both(tokenizer_folder, best, cheap) as served:
        for engine in (best, cheap):
            engine.drain()
        await until(lambda: not any(lane.ready() for lane in served.desk.lanes))
        waiting = asyncio.ensure_future(asked(served, chat()))
        await until(lambda: served.lane.queued_requests == 1)
        served.add(FakeEngine())
        assert (await waiting).headers[VARIANT] == MODEL


async def test_models_and_metrics_tell_of_variants(tokenizer_folder: Path) -> None:
    async with both(tokenizer_folder, FakeEngine(), FakeEngine()) as served:
        (card,) = (await served.http.get("/v1/models")).json()["data"]
        assert card["variants"] == [
            {"name": MODEL, "quality": 1.0, "ready": True},
            {"name": "w4", "quality": 0.9, "ready": True},
        ]
        await asked(served, chat(service_tier="flex"))
        metrics = await served.metrics()
        labels = f'model="{MODEL}-w4",of="{MODEL}",variant="w4"'
        assert metrics[f"headrace_variant_quality{{{labels}}}"] == 0.9
        assert metrics[f'headrace_variant_requests_total{{{labels},why="cost"}}'] == 1.0
        assert metrics[f'headrace_requests_total{{model="{MODEL}-w4",outcome="ok"}}'] == 1.0
        (ready,) = (await served.http.get("/ready")).json()["models"].values()
        assert ready == "ready"
