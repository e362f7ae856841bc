"""Do files come in, out and away as with OpenAI, each tenant's apart, and never held in memory?"""

import asyncio
import json
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling import Targets
from deployments.books import Books
from deployments.files import stored_files
from deployments.files.shelf import Shelf
from deployments.files.upload import Form
from deployments.fleet import Fleet, Limits, RouterSettings, StoreSettings, Tenant, files_url
from deployments.openai_wire import ApiError
from deployments.router_metrics import RouterMetrics
from deployments.store import Store
from tests.deployments.batch_files import chat, ended, kept, put, text_of
from tests.deployments.fake_engine import FakeEngine
from tests.deployments.http_served import Served, serve

KEYS = {"alpha": "sk-alpha", "beta": "sk-beta"}
TENANTS = [Tenant(name=name, key_hashes=[sha256(key.encode()).hexdigest()]) for name, key in KEYS.items()]
BOUNDARY = "xyz"
KIND = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


@pytest.fixture
async def keeping(tokenizer_folder: Path, tmp_path: Path, url: str) -> AsyncIterator[Served]:
    limits = Limits(file_bytes=50_000, tenant_files_bytes=120_000, body_s=0.5)
    settings = RouterSettings(limits=limits)
    async with serve(tokenizer_folder, FakeEngine(), kept=kept(url, tmp_path), settings=settings) as served:
        yield served


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    more = f'; filename="{filename}"' if filename is not None else ""
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


@pytest.mark.anyio
async def test_a_file_comes_in_is_listed_and_read_and_goes(keeping: Served, tmp_path: Path) -> None:
    client, content = keeping.openai, bytes(range(256)) * 100
    file = await client.files.create(file=("näme.jsonl", content), purpose="batch")
    assert (file.bytes, file.filename, file.purpose, file.status) == (25600, "näme.jsonl", "batch", "processed")
    assert (file.expires_at or 0) - file.created_at == 30 * 24 * 3600
    short = {"anchor": "created_at", "seconds": 3600}
    other = await client.files.create(file=b"x", purpose="batch", expires_after=short)  # type: ignore[arg-type]
    assert (other.expires_at or 0) - other.created_at == 3600
    assert await client.files.retrieve(file.id) == file
    assert (await client.files.content(file.id)).content == content
    assert [one.id for one in (await client.files.list()).data] == [other.id, file.id]
    first = await client.files.list(limit=1, order="asc")
    assert ([one.id for one in first.data], first.has_more) == ([file.id], True)
    second = await client.files.list(limit=1, order="asc", after=file.id)
    assert ([one.id for one in second.data], second.has_more) == ([other.id], False)
    assert (await client.files.list(purpose="batch_output")).data == []
    assert (await client.files.delete(file.id)).deleted
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            await ask(file.id)
    assert [one.id for one in (await client.files.list()).data] == [other.id]


@pytest.mark.anyio
async def test_what_is_no_file_is_refused_and_nothing_of_it_stays(keeping: Served, tmp_path: Path, url: str) -> None:
    good = part("purpose", b"batch") + part("file", b"{}", "a.jsonl")
    refused: list[tuple[bytes, dict[str, str], int, str | None]] = [
        (b"{}", {"content-type": "application/json"}, 400, "invalid_multipart"),
        (b"", KIND, 400, "invalid_multipart"),
        (b"no part at all", KIND, 400, "invalid_multipart"),
        (good, KIND, 400, "invalid_multipart"),  # without its end
        (part("purpose", b"batch") + END, KIND, 400, "invalid_multipart"),
        (part("file", b"{}", "a") + END, KIND, 400, None),
        (part("purpose", b"vision") + part("file", b"{}", "a") + END, KIND, 400, None),
        (good + part("file", b"{}", "b") + END, KIND, 400, "invalid_multipart"),
        (good + part("expires_after[seconds]", b"7200") + END, KIND, 400, None),
        (part("purpose", b"b" * 70_000) + END, KIND, 400, "invalid_multipart"),
        (part("purpose", b"batch") + part("file", b"x" * 50_001, "a") + END, KIND, 413, "file_too_large"),
    ]
    for body, headers, status, code in refused:
        answer = await keeping.http.post("/v1/files", content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), body[:200]
    assert (await keeping.openai.files.list()).data == []
    store = Store(url)
    shelf = Shelf(f"{tmp_path}/files")
    for name in stored_files.to_purge(store, 0.0):
        shelf.remove(name)
    store.close()
    assert not list((tmp_path / "files").iterdir()), "each file has a row, by which it is cleared away"


@pytest.mark.anyio
async def test_fields_may_come_after_the_file_and_in_any_pieces(keeping: Served) -> None:
    body = part("file", b"\r\n--xy\r\nno boundary", "../../a.jsonl") + part("purpose", b"batch") + END

    async def pieces() -> AsyncIterator[bytes]:
        for place in range(len(body)):
            yield body[place : place + 1]

    file = (await keeping.http.post("/v1/files", content=pieces(), headers=KIND)).json()
    assert (file["filename"], file["bytes"]) == ("a.jsonl", 19)
    assert (await keeping.openai.files.content(file["id"])).content == b"\r\n--xy\r\nno boundary"


@pytest.mark.anyio
async def test_a_tenant_s_files_together_have_a_limit(keeping: Served) -> None:
    client = keeping.openai
    files = [await client.files.create(file=b"x" * 40_000, purpose="batch") for _ in range(3)]
    with pytest.raises(openai.APIStatusError) as refused:
        await client.files.create(file=b"x", purpose="batch")
    assert (refused.value.status_code, refused.value.code) == (413, "files_too_large")
    await client.files.delete(files[0].id)
    with pytest.raises(openai.APIStatusError):
        await client.files.create(file=b"x" * 40_001, purpose="batch")
    await client.files.create(file=b"x" * 40_000, purpose="batch")


@pytest.mark.anyio
async def test_a_client_that_says_nothing_more_does_not_hold_its_place(keeping: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", keeping.port)
    begun = part("purpose", b"batch")
    kind = f"Content-Type: {KIND['content-type']}\r\nContent-Length: {len(begun) + 1000}"
    writer.write(f"POST /v1/files HTTP/1.1\r\nHost: here\r\n{kind}\r\n\r\n".encode() + begun)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["error"]["code"] == "request_timeout"


@pytest.mark.anyio
async def test_another_tenant_s_files_and_batches_are_not_there(
    tokenizer_folder: Path, tmp_path: Path, url: str
) -> None:
    async with serve(tokenizer_folder, FakeEngine(), tenants=TENANTS, kept=kept(url, tmp_path)) as served:
        alpha, beta = (served.openai.with_options(api_key=key) for key in KEYS.values())
        batch = await ended(alpha, (await put(alpha, [chat("a", "x")])).id)
        files = (batch.input_file_id, batch.output_file_id or "")
        for name in files:
            await alpha.files.retrieve(name)
            for ask in (beta.files.retrieve, beta.files.content, beta.files.delete):
                with pytest.raises(openai.NotFoundError):
                    await ask(name)
        for look in (beta.batches.retrieve, beta.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                await look(batch.id)
        with pytest.raises(openai.NotFoundError):
            await beta.batches.create(input_file_id=files[0], endpoint="/v1/completions", completion_window="24h")
        assert ((await beta.files.list()).data, (await beta.batches.list()).data) == ([], [])
        for after in (beta.files.list(after=files[0]), beta.batches.list(after=batch.id)):
            with pytest.raises(openai.NotFoundError):
                await after
        assert len((await alpha.files.list()).data) == 2
        with pytest.raises(openai.AuthenticationError):
            await served.openai.files.list()


@pytest.mark.anyio
async def test_an_input_that_is_deleted_is_there_until_its_batch_has_read_it(
    tokenizer_folder: Path, tmp_path: Path, url: str
) -> None:
    engine = FakeEngine(slots=2, step_s=[0.01])
    async with serve(tokenizer_folder, engine, kept=kept(url, tmp_path)) as served:
        client, store = served.openai, Store(url)
        batch = await put(client, [chat(str(number), "x", max_tokens=20) for number in range(10)])
        await client.files.delete(batch.input_file_id)
        assert stored_files.to_purge(store, 0.0) == []
        assert (await ended(client, batch.id)).status == "completed"
        assert stored_files.to_purge(store, 0.0) == [batch.input_file_id]
        store.close()


@pytest.mark.anyio
async def test_a_fleet_without_a_place_for_files_says_so(fresh: Served) -> None:
    for path in ("/v1/files", "/v1/batches", "/v1/files/a/content"):
        answer = await fresh.http.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_files")
    assert files_url(StoreSettings(url="postgresql+psycopg://h/d")) is None
    assert files_url(StoreSettings(url="postgresql+psycopg://h/d", files="s3://b/p")) == "s3://b/p"
    assert files_url(StoreSettings(url="sqlite:////a/b.sqlite")) == "/a/b.sqlite.files"


@pytest.mark.anyio
async def test_what_a_fleet_says_of_its_store_is_where_a_router_keeps_files(tmp_path: Path) -> None:
    def books(**store: str) -> Books:
        told = {"models": [{"name": "tiny", "source": "tiny"}], "store": store}
        return Books(Fleet.model_validate(told), lambda _: None)

    metrics, url = RouterMetrics(Targets()), f"sqlite:///{tmp_path}/store.sqlite"
    usual, elsewhere = books(url=url), books(url=url, files="s3://bucket/files")
    work = usual.work({}, metrics, RouterSettings())
    assert work is not None
    assert work[0].routes("/v1/files").keys() == {"GET", "POST"}
    assert (tmp_path / "store.sqlite.files").is_dir()
    with pytest.raises(ImportError, match="s3fs"):
        elsewhere.work({}, metrics, RouterSettings())
    for each in (usual, elsewhere):
        await each.close()


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), max_size=30))
def test_any_content_comes_through_in_any_pieces(content: bytes, sizes: list[int]) -> None:
    boundary = sha256(content).hexdigest()
    body = (part("purpose", b"batch") + part("file", content, "a") + END).replace(BOUNDARY.encode(), boundary.encode())
    body = body if BOUNDARY.encode() not in content else b""
    if not body:
        return
    form, told, place = Form(f"multipart/form-data; boundary={boundary}".encode(), 1000), b"", 0
    for size in [*sizes, len(body)]:
        told += form.feed(body[place : place + size])
        place += size
    assert (told, form.whole, form.size_bytes, form.fields) == (content, True, len(content), {"purpose": "batch"})


def test_files_at_a_service_are_copied_to_be_read_here_and_there() -> None:
    shelf = Shelf("memory://bucket/files")
    opened = shelf.create("a")
    opened.write(text_of([{"a": 1}, {"b": 2}]))
    shelf.finish(opened)
    with shelf.at_hand("a") as file:
        assert [json.loads(line) for line in file] == [{"a": 1}, {"b": 2}]
        assert file.fileno() > 0
    shelf.remove("a")
    shelf.remove("a")
    with pytest.raises(FileNotFoundError), shelf.at_hand("a"):
        pass


def test_a_form_of_too_many_headers_is_refused() -> None:
    form = Form(KIND["content-type"].encode(), 10)
    with pytest.raises(ApiError) as refused:
        form.feed(f"--{BOUNDARY}\r\n".encode() + b"a: b\r\n" * 1000)
    assert refused.value.status == 400
