"""Does a batch that OpenAI's client asks for come out as OpenAI says, each line once?"""

import asyncio
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Any

import openai
import pytest

from deployments.batches import stored_batches
from deployments.batches.batch import WINDOW_S, Batch
from deployments.batches.state import Status
from deployments.fleet import Limits, RouterSettings, Tenant
from deployments.store import Store
from tests.deployments.batch_files import answers, chat, ended, kept, lines_of, put, said
from tests.deployments.fake_engine import FakeEngine
from tests.deployments.http_served import CHAT, serve

pytestmark = pytest.mark.anyio


async def test_chats_come_out_as_the_engine_says_them_in_their_order(
    tokenizer_folder: Path, tmp_path: Path, url: str
) -> None:
    contents = [f"question {number} {'x' * (number % 7)}" for number in range(40)]
    async with serve(tokenizer_folder, FakeEngine(slots=4), kept=kept(url, tmp_path)) as served:
        client = served.openai
        batch = await put(client, [chat(f"id-{place}", one) for place, one in enumerate(contents)], metadata={"a": "b"})
        assert (batch.status, batch.endpoint, batch.completion_window) == ("validating", CHAT, "24h")
        assert batch.expires_at == pytest.approx(batch.created_at + WINDOW_S, abs=1)
        batch = await ended(client, batch.id)
        assert batch.status == "completed"
        assert batch.request_counts is not None
        assert batch.request_counts.model_dump() == {"total": 40, "completed": 40, "failed": 0}
        assert (batch.error_file_id, batch.errors, batch.metadata, batch.model) == (None, None, {"a": "b"}, "tiny")
        output = await lines_of(client, batch.output_file_id)
        assert [line["custom_id"] for line in output] == [f"id-{place}" for place in range(40)]
        assert [said(line) for line in output] == await answers(served, contents)
        assert all(line["error"] is None and line["response"]["status_code"] == 200 for line in output)
        assert batch.usage is not None
        assert batch.usage.output_tokens == 40 * 5
        assert batch.usage.input_tokens == sum(line["response"]["body"]["usage"]["prompt_tokens"] for line in output)
        assert (
            batch.created_at <= (batch.in_progress_at or 0) <= (batch.finalizing_at or 0) <= (batch.completed_at or 0)
        )
        assert all(submit.tier == 2 for submit in served.engine.submits), "tier batch, whatever a line asks for"


async def test_wrong_lines_are_told_by_number_and_the_others_run(
    tokenizer_folder: Path, tmp_path: Path, url: str
) -> None:
    lines: list[Any] = [
        chat("good", "a"),
        "{not json",
        chat("", "b"),
        "",
        chat("good", "c"),
        chat("elsewhere", "d") | {"url": "/v1/completions"},
        chat("streamed", "e", stream=True),
        chat("unknown", "f", model="other"),
        chat("wrong", "g", max_tokens=10_000),
        chat("urgent", "h", service_tier="priority"),
    ]
    async with serve(tokenizer_folder, FakeEngine(), kept=kept(url, tmp_path)) as served:
        client = served.openai
        batch = await ended(client, (await put(client, lines)).id)
        assert batch.status == "completed"
        assert batch.request_counts is not None
        assert batch.request_counts.model_dump() == {"total": 9, "completed": 2, "failed": 7}
        assert batch.errors is not None
        told = [(error.line, error.code) for error in batch.errors.data or ()]
        assert told == [
            (2, "invalid_json_line"),
            (3, "missing_custom_id"),
            (5, "duplicate_custom_id"),
            (6, "mismatched_url"),
            (7, "invalid_body"),
        ]
        output = await lines_of(client, batch.output_file_id)
        assert [line["custom_id"] for line in output] == ["good", "urgent"]
        errors = await lines_of(client, batch.error_file_id)
        assert [line["custom_id"] for line in errors] == [
            None, None, None, "elsewhere", "streamed", "unknown", "wrong",
        ]  # fmt: skip
        assert [line["error"]["line"] for line in errors[:5]] == [2, 3, 5, 6, 7]
        assert [line["response"]["status_code"] for line in errors[5:]] == [404, 400]
        assert all(submit.tier == 2 for submit in served.engine.submits)


async def test_a_file_in_which_nothing_can_be_asked_fails_the_batch(
    tokenizer_folder: Path, tmp_path: Path, url: str
) -> None:
    async with serve(tokenizer_folder, FakeEngine(), kept=kept(url, tmp_path)) as served:
        client = served.openai
        for lines, code in (([], "empty_file"), (["no", "[]"], "invalid_lines")):
            batch = await ended(client, (await put(client, lines)).id)
            assert (batch.status, batch.output_file_id, batch.error_file_id) == ("failed", None, None)
            assert batch.errors is not None
            assert batch.errors.data is not None
            assert (batch.errors.data[0].code, len(batch.errors.data)) == (code, 1 + len(lines))
            assert batch.failed_at is not None


async def test_a_cancelled_batch_keeps_what_was_answered_and_names_the_rest(
    tokenizer_folder: Path, tmp_path: Path, url: str
) -> None:
    engine = FakeEngine(slots=2, step_s=[0.02])
    async with serve(tokenizer_folder, engine, kept=kept(url, tmp_path)) as served:
        client = served.openai
        batch = await put(client, [chat(str(number), "x" * number, max_tokens=10) for number in range(60)])
        async with asyncio.timeout(10):
            while not (now := await client.batches.retrieve(batch.id)).request_counts.completed:  # type: ignore[union-attr]
                await asyncio.sleep(0.02)
        assert now.status == "in_progress"
        assert now.model_extra is not None
        assert now.model_extra["progress"]["seconds_left"] > 0
        assert (await client.batches.cancel(batch.id)).status == "cancelling"
        batch = await ended(client, batch.id)
        assert (batch.status, (batch.cancelled_at or 0) >= (batch.cancelling_at or 1)) == ("cancelled", True)
        output, errors = await lines_of(client, batch.output_file_id), await lines_of(client, batch.error_file_id)
        names = [int(line["custom_id"]) for line in (*output, *errors)]
        assert sorted(names) == list(range(60))
        assert 0 < len(output) < 60
        assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}
        assert served.engine.unfinished == 0, "what was in flight is given up in the engine"
        assert (await client.batches.cancel(batch.id)).status == "cancelled"


async def test_a_tenant_may_have_so_many_open_over_all_routers_and_others_theirs(
    tokenizer_folder: Path, tmp_path: Path, url: str
) -> None:
    names = {"alpha": "sk-alpha", "beta": "sk-beta"}
    tenants = [Tenant(name=name, key_hashes=[sha256(key.encode()).hexdigest()]) for name, key in names.items()]
    told: Any = {"tenants": tenants, "settings": RouterSettings(limits=Limits(tenant_open_batches=2))}
    engines = [FakeEngine(slots=1), FakeEngine(slots=1)]
    for engine in engines:
        engine.stall()
    async with (
        serve(tokenizer_folder, engines[0], kept=kept(url, tmp_path), **told) as one,
        serve(tokenizer_folder, engines[1], kept=kept(url, tmp_path), **told) as other,
    ):
        alpha, beta = one.openai.copy(api_key="sk-alpha"), other.openai.copy(api_key="sk-beta")
        there = other.openai.copy(api_key="sk-alpha")
        first = await put(alpha, [chat("a", "x")])
        again: Any = {"input_file_id": first.input_file_id, "endpoint": CHAT, "completion_window": "24h"}
        await there.batches.create(**again)
        for client in (alpha, there):
            with pytest.raises(openai.RateLimitError) as refused:
                await client.batches.create(**again)
            assert (refused.value.code, refused.value.type) == ("too_many_batches", "rate_limit_error")
        assert len((await alpha.batches.list()).data) == 2
        await put(beta, [chat("a", "x")])
        await there.batches.cancel(first.id)
        await ended(alpha, first.id)
        await alpha.batches.create(**again)


async def test_what_ended_long_ago_is_forgotten(tokenizer_folder: Path, tmp_path: Path) -> None:
    place, day_s = kept(f"sqlite:///{tmp_path}/store.sqlite", tmp_path), 24 * 3600.0
    store = Store(place.url)
    for name, days in (("batch_old", 31.0), ("batch_new", 29.0)):
        told: Any = {"key": "", "models": None, "endpoint": CHAT, "input_file": "", "about": None, "files_kept_s": None}
        ended_s = time() - days * day_s
        one = Batch(id=name, tenant="", created_s=ended_s - 1, expires_s=ended_s, **told)
        stored_batches.add(store, one, most_open=1)
        stored_batches.claim(store, "one", 60.0)
        stored_batches.end(store, name, "one", Status.FAILED, {"ended_s": ended_s}, (None, None))
    store.close()
    settings = RouterSettings(batches_kept_days=30)
    async with serve(tokenizer_folder, FakeEngine(), kept=place, settings=settings) as served:
        client = served.openai
        async with asyncio.timeout(10):
            while "batch_old" in [one.id for one in (await client.batches.list()).data]:
                await asyncio.sleep(0.02)
        assert (await client.batches.retrieve("batch_new")).status == "failed"
        with pytest.raises(openai.NotFoundError):
            await client.batches.retrieve("batch_old")
