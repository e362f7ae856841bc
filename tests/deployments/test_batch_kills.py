"""Whoever is killed, does a batch go on, with each line answered once and as without a kill?"""

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import openai
import pytest

from deployments.fleet import sqlite_url
from deployments.openai_wire import ChatRequest, Message
from deployments.render import Renderer
from tests.deployments.batch_files import ENDED, chat, ended, lines_of, put, said, text_of
from tests.deployments.fake_engine import expected
from tests.deployments.http_served import CHAT, MODEL
from tests.deployments.router_process import RouterProcess, router_process

pytestmark = pytest.mark.anyio


@pytest.mark.slow
async def test_of_two_routers_the_other_goes_on_where_one_is_killed(
    tokenizer_folder: Path, tmp_path: Path, url: str
) -> None:
    """Each runs two of four batches: a router takes no more of a tenant."""
    contents = [f"question {number}" for number in range(40)]
    lines, files = [chat(one, one, max_tokens=40) for one in contents], tmp_path / "files"
    with ExitStack() as stack:
        one = stack.enter_context(router_process(tokenizer_folder, url, files))
        other = stack.enter_context(router_process(tokenizer_folder, url, files))
        async with one.client as client, other.client as survivor:
            file = await client.files.create(file=("in.jsonl", text_of(lines)), purpose="batch")
            given: Any = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
            names = [(await client.batches.create(**given)).id for _ in range(4)]
            while any(one.status == "validating" for one in (await survivor.batches.list()).data):
                await asyncio.sleep(0.02)
            one.kill()
            batches = [await ended(survivor, name) for name in names]
            outputs = [await lines_of(survivor, batch.output_file_id) for batch in batches]
            assert (await survivor.files.content(file.id)).content == text_of(lines)
    assert {(batch.status, batch.error_file_id) for batch in batches} == {("completed", None)}
    wanted = await as_the_engine_says(tokenizer_folder, contents, 40)
    for output in outputs:
        assert [line["custom_id"] for line in output] == contents
        assert [said(line) for line in output] == wanted


async def as_the_engine_says(folder: Path, contents: list[str], max_tokens: int) -> list[str]:
    with ThreadPoolExecutor(1) as threads:
        renderer = Renderer(str(folder), threads)
        asked = [ChatRequest(model=MODEL, messages=[Message(role="user", content=one)]) for one in contents]
        return [expected(await renderer.chat(one), max_tokens=max_tokens).text for one in asked]


def lines_of_all_kinds(count: int) -> list[dict[str, Any] | str]:
    """Some share a beginning, some are wrong."""
    lines: list[dict[str, Any] | str] = []
    for number in range(count):
        start = "You are one of many. " * 40 if number % 3 else ""
        lines.append(chat(f"id-{number}", f"{start}question {number}", max_tokens=4 + number % 9))
        if number % 20 == 7:
            lines += ["this is wrong", chat(f"id-wrong-{number}", "x", max_tokens=10_000)]
    return lines


async def result(client: openai.AsyncOpenAI, batch: Any) -> list[tuple[str, str | None, str]]:
    """Of each line of both files: the file, its id, and what was said, but for what every answer has of its own."""
    output = [("output", line["custom_id"], said(line)) for line in await lines_of(client, batch.output_file_id)]
    errors = await lines_of(client, batch.error_file_id)
    return output + [("error", line["custom_id"], str(line["error"] or line["response"]["body"])) for line in errors]


async def undisturbed(folder: Path, place: Path, lines: list[dict[str, Any] | str]) -> list[Any]:
    with router_process(folder, sqlite_url(place / "calm.sqlite"), place / "calm") as server:
        async with server.client as client:
            batch = await ended(client, (await put(client, lines)).id)
            return await result(client, batch)


async def killed_until_it_ends(
    start: Callable[[], RouterProcess], server: RouterProcess, name: str, draw: random.Random
) -> tuple[Any, list[Any], int]:
    """The batch in its end, what came of it, and how often its server was killed before that."""
    killed = 0
    while True:
        until_s = monotonic() + draw.uniform(0.2, 3.0)
        async with server.client as client:
            while monotonic() < until_s:
                batch = await client.batches.retrieve(name)
                if batch.status in ENDED:
                    return batch, await result(client, batch), killed
                await asyncio.sleep(0.02)
        server.kill()
        killed += 1
        server = start()


@pytest.mark.prove
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(2))
async def test_a_router_that_is_killed_again_and_again_answers_each_line_once(
    tokenizer_folder: Path, tmp_path: Path, url: str, seed: int, record_property: Callable[[str, object], None]
) -> None:
    lines = lines_of_all_kinds(3000)
    calm = await undisturbed(tokenizer_folder, tmp_path, lines)
    with ExitStack() as stack:

        def start() -> RouterProcess:
            return stack.enter_context(router_process(tokenizer_folder, url, tmp_path / "files"))

        server = start()
        async with server.client as client:
            name = (await put(client, lines)).id
        batch, told, kills = await killed_until_it_ends(start, server, name, random.Random(seed))
    record_property("kills", kills)
    record_property("lines", len(lines))
    assert kills >= 3
    assert batch.status == "completed"
    assert told == calm
    counts = batch.request_counts
    assert (counts.total, counts.completed + counts.failed) == (len(lines), len(lines))
    named = [one[1] for one in told if one[1] is not None]
    assert len(named) == len(set(named)) == 3000 + 150
