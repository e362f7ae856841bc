"""What becomes of a batch when engines fail or are lost, limits are met, keys end, or its day is over?"""

import asyncio
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Any

import pytest

from deployments.api_key import new_key
from deployments.batches import stored_batches, verdict
from deployments.batches.batch import Batch
from deployments.files import stored_files
from deployments.files.stored_files import File
from deployments.fleet import Tenant
from deployments.key_ring import KeyRing
from deployments.store import Store, StoreError
from tests.deployments.batch_files import answers, chat, ended, kept, lines_of, put, said, text_of
from tests.deployments.fake_engine import FakeEngine
from tests.deployments.http_served import CHAT, MODEL, serve, until
from tests.deployments.ledger_here import Here, toll_keeper
from tests.deployments.test_usage import Lines

pytestmark = pytest.mark.anyio


@pytest.fixture
def place(tmp_path: Path) -> Any:
    return kept(f"sqlite:///{tmp_path}/store.sqlite", tmp_path)


async def test_a_lost_engine_costs_no_line(tokenizer_folder: Path, place: Any) -> None:
    contents = [f"question {number}" for number in range(60)]
    async with serve(tokenizer_folder, FakeEngine(slots=4, step_s=[0.01]), kept=place) as served:
        client = served.openai
        batch = await put(client, [chat(one, one) for one in contents])
        for _ in range(3):
            await served.engines[-1].until(lambda: served.engines[-1].unfinished > 0)
            served.engines[-1].close(died=True)
            await until(lambda: not served.lane.replicas)
            served.add(FakeEngine(slots=4, step_s=[0.01]))
        batch = await ended(client, batch.id)
        output = await lines_of(client, batch.output_file_id)
        assert (batch.status, batch.error_file_id) == ("completed", None)
        assert [said(line) for line in output] == await answers(served, contents)


@pytest.mark.parametrize("lease_s", [10.0, 2.0], ids=["the same run goes on", "the lease is lost"])
async def test_a_store_that_is_away_for_a_while_costs_no_line(
    tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lease_s: float
) -> None:
    here, calls = kept(f"sqlite:///{tmp_path}/store.sqlite", tmp_path, lease_s=lease_s), 0
    keep = stored_batches.keep

    def fails_for_a_while(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if 2 <= calls <= 9:
            raise StoreError("it is away")
        return keep(*given)

    monkeypatch.setattr(stored_batches, "keep", fails_for_a_while)
    contents = [f"question {number}" for number in range(40)]
    async with serve(tokenizer_folder, FakeEngine(slots=2, step_s=[0.02]), kept=here) as served:
        client = served.openai
        batch = await ended(client, (await put(client, [chat(one, one) for one in contents])).id)
        output = await lines_of(client, batch.output_file_id)
        assert (batch.status, batch.error_file_id) == ("completed", None)
        assert [said(line) for line in output] == await answers(served, contents)
        assert any("stands still: it is away" in line for line in here.said)
        assert any("another router's now" in line for line in here.said) == (lease_s < 3)


async def test_a_line_that_its_engine_always_fails_ends_in_the_error_file(
    tokenizer_folder: Path, place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict, "PAUSE_S", 0.01)
    async with serve(tokenizer_folder, FakeEngine(fail_after=3), kept=place) as served:
        client = served.openai
        batch = await ended(client, (await put(client, [chat("short", "a", max_tokens=2), chat("long", "b")])).id)
        assert (batch.status, batch.request_counts.failed) == ("completed", 1)  # type: ignore[union-attr]
        (line,) = await lines_of(client, batch.error_file_id)
        assert (line["custom_id"], line["response"]["status_code"]) == ("long", 503)
        assert sum(len(submit.prompt_ids) > 0 for submit in served.engine.submits) == 1 + verdict.TRIES


async def test_usage_and_limits_are_those_of_the_tenant(tokenizer_folder: Path, place: Any) -> None:
    alpha = Tenant.model_validate(
        {
            "name": "alpha",
            "key_hashes": [sha256(b"sk-alpha").hexdigest()],
            "budgets": [{"tokens": 400, "per": "total"}],
        }
    )
    journal, more = Lines(), {"tenants": [alpha], "tolls": toll_keeper(alpha, Here())}
    async with serve(tokenizer_folder, FakeEngine(slots=1), kept=place, journal=journal, **more) as served:  # type: ignore[arg-type]
        client = served.openai.with_options(api_key="sk-alpha")
        batch = await ended(client, (await put(client, [chat(str(number), "x") for number in range(40)])).id)
        output, errors = await lines_of(client, batch.output_file_id), await lines_of(client, batch.error_file_id)
        assert (batch.status, len(output) + len(errors)) == ("completed", 40)
        used = sum(line["response"]["body"]["usage"]["total_tokens"] for line in output)
        assert 0 < used <= 400
        assert {line["response"]["body"]["error"]["code"] for line in errors} == {"insufficient_quota"}
        requests, prompt, _, made, _ = journal.sums()
        assert (requests, prompt + made) == (len(output), used)
        assert {(line.tenant, line.key) for line in journal.said} == {("alpha", "file-1")}


async def test_lines_keep_to_what_their_tenant_may_have_open(tokenizer_folder: Path, place: Any) -> None:
    what = {"name": "alpha", "key_hashes": [sha256(b"sk-alpha").hexdigest()], "max_open_requests": 3}
    engine, most = FakeEngine(slots=8, step_s=[0.005]), 0
    async with serve(tokenizer_folder, engine, kept=place, tenants=[Tenant.model_validate(what)]) as served:
        client = served.openai.with_options(api_key="sk-alpha")
        batch = await put(client, [chat(str(number), "x", max_tokens=10) for number in range(30)])
        async with asyncio.timeout(30):
            while (now := await client.batches.retrieve(batch.id)).status != "completed":
                most = max(most, engine.unfinished)
        assert now.request_counts is not None
        assert (now.request_counts.completed, 1 <= most <= 3) == (30, True)


async def test_the_batch_of_a_revoked_key_is_cancelled_and_that_of_an_expired_one_goes_on(
    tokenizer_folder: Path, place: Any
) -> None:
    (revoked_text, revoked), (late_text, late) = (new_key(name, now_s=time()) for name in ("alpha", "beta"))
    ring = KeyRing([], stored=[revoked, late])
    engine = FakeEngine(slots=2, step_s=[0.01])
    async with serve(tokenizer_folder, engine, kept=place, ring=ring) as served:
        lines = [chat(str(number), "x", max_tokens=20) for number in range(12)]
        clients = [served.openai.with_options(api_key=key) for key in (revoked_text, late_text)]
        batches = [await put(client, lines) for client in clients]
        await until(lambda: served.batches is not None and served.batches.running == 2)
        gone = type(revoked)(**{name: getattr(revoked, name) for name in revoked.__slots__} | {"revoked_s": time()})
        over = type(late)(**{name: getattr(late, name) for name in late.__slots__} | {"expires_s": time()})
        successors = [new_key(name, now_s=time()) for name in ("alpha", "beta")]
        ring.hear([gone, over, *(kept for _, kept in successors)])
        clients = [served.openai.with_options(api_key=key) for key, _ in successors]
        first, second = [await ended(*pair) for pair in zip(clients, (one.id for one in batches), strict=True)]
        assert first.errors is not None
        assert (first.status, [error.code for error in first.errors.data or ()]) == ("cancelled", ["key_revoked"])
        assert (second.status, second.request_counts.completed) == ("completed", 12)  # type: ignore[union-attr]


async def test_after_its_day_what_is_left_of_a_batch_is_named_as_expired(tokenizer_folder: Path, place: Any) -> None:
    engine = FakeEngine(slots=1, step_s=[0.02])
    async with serve(tokenizer_folder, engine, kept=place) as served:
        client, store = served.openai, Store(place.url)
        names = [str(number) for number in range(200)]
        file = (await client.files.create(file=("a", text_of(chat(name, "x") for name in names)), purpose="batch")).id
        told = {"key": "", "models": None, "endpoint": CHAT, "about": None, "files_kept_s": 3600.0}
        short = Batch(id="batch_short", tenant="", input_file=file, created_s=time(), expires_s=time() + 1.5, **told)  # type: ignore[arg-type]
        stored_batches.add(store, short, most_open=1)
        store.close()
        batch = await ended(client, "batch_short")
        output, errors = await lines_of(client, batch.output_file_id), await lines_of(client, batch.error_file_id)
        assert (batch.status, batch.expired_at is not None) == ("expired", True)
        assert sorted(line["custom_id"] for line in (*output, *errors)) == sorted(names)
        assert output
        assert {line["error"]["code"] for line in errors} == {"batch_expired"}
        made = await client.files.retrieve(batch.error_file_id or "")
        assert (made.expires_at or 0) - made.created_at == pytest.approx(3600, abs=1)


async def test_every_endpoint_and_requests_of_vllm_s_application_run_too(tokenizer_folder: Path, place: Any) -> None:
    async with serve(tokenizer_folder, FakeEngine(), kept=place) as served:
        client = served.openai
        for path in ("/v1/completions", "/v1/embeddings", "/v1/responses", CHAT):
            body = {"model": MODEL, "prompt": "a", "input": "a", "messages": [], "tools": [], "do": "echo"}
            line = {"custom_id": path, "method": "POST", "url": path, "body": body}
            batch = await ended(client, (await put(client, [line], endpoint=path)).id)
            (told,) = await lines_of(client, batch.output_file_id)
            assert told["response"]["body"]["path"] == path
        with pytest.raises(Exception, match="endpoint"):
            await put(client, [], endpoint="/v1/moderations")


async def test_an_input_whose_bytes_are_lost_fails_its_batch(tokenizer_folder: Path, place: Any) -> None:
    async with serve(tokenizer_folder, FakeEngine(), kept=place) as served:
        client, store = served.openai, Store(place.url)
        stored_files.coming(store, "file-lost", "", time())
        told = {"filename": "a", "purpose": "batch", "size_bytes": 9, "created_s": time(), "expires_s": None}
        stored_files.keep(store, File(id="file-lost", tenant="", **told), 1 << 20)  # type: ignore[arg-type]
        store.close()
        batch = await client.batches.create(input_file_id="file-lost", endpoint=CHAT, completion_window="24h")
        batch = await ended(client, batch.id)
        assert batch.errors is not None
        assert (batch.status, (batch.errors.data or [])[0].code) == ("failed", "input_file_lost")


async def test_a_batch_does_not_starve_who_waits(tokenizer_folder: Path, place: Any) -> None:
    """While a batch has every place of the engine, a chat still comes soon."""
    async with serve(tokenizer_folder, FakeEngine(slots=4, step_s=[0.01]), kept=place) as served:
        client = served.openai
        batch = await put(client, [chat(str(number), "x", max_tokens=30) for number in range(400)])
        await served.engine.until(lambda: served.engine.unfinished >= 3)
        chats = [{"role": "user", "content": "hello"}]
        async with asyncio.timeout(10):
            for _ in range(4):
                await client.chat.completions.create(model=MODEL, messages=chats, max_tokens=5)  # type: ignore[arg-type]
        assert (await client.batches.retrieve(batch.id)).status == "in_progress"
        await client.batches.cancel(batch.id)
        assert (await ended(client, batch.id)).status == "cancelled"


async def test_a_router_that_is_stopped_leaves_its_batches_to_the_next_at_once(
    tokenizer_folder: Path, place: Any
) -> None:
    """The lease would last for 10 s."""
    async with serve(tokenizer_folder, FakeEngine(slots=2, step_s=[0.01]), kept=place) as served:
        batch = await put(served.openai, [chat(str(number), "x", max_tokens=10) for number in range(60)])
        await served.engine.until(lambda: served.engine.unfinished > 0)
    async with serve(tokenizer_folder, FakeEngine(slots=8), kept=place) as served:
        await until(lambda: served.batches is not None and served.batches.running == 1)
        now = await ended(served.openai, batch.id)
        assert (now.status, now.request_counts.completed) == ("completed", 60)  # type: ignore[union-attr]
