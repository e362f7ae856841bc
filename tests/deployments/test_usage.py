"""Is what was answered counted, once, whoever is killed and whatever is tried again?"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments import stored_usage, usage_journal
from deployments.fleet import sqlite_url
from deployments.late_store import LateStore
from deployments.store import Store, StoreError
from deployments.store_paths import store_path
from deployments.usage_journal import UsageJournal
from deployments.usage_keeper import FOLDER, UsageKeeper, take_over_left
from deployments.usage_line import Line
from tests.deployments.fake_engine import CACHED_TOKENS, STEP_GPU_S, FakeEngine
from tests.deployments.forwarded import CHAT
from tests.deployments.http_served import MODEL, idle, serve, until
from tests.deployments.router_process import KEYS, TENANTS, router_process

BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 5}


@dataclass
class Lines:
    """A journal that a test reads."""

    said: list[Line] = field(default_factory=list)

    def add(self, line: Line) -> None:
        self.said.append(line)

    def sums(self) -> tuple[float, ...]:
        return tuple(sum(getattr(line, name) for line in self.said) for name in stored_usage.AMOUNTS)


def line(number: int = 0, **what: Any) -> Line:
    who = {"at_s": 7200.0 + number, "tenant": "alpha", "key": "k", "model": "m", "variant": "m"}
    amounts = {"requests": 1, "prompt_tokens": 3, "cached_tokens": 2, "output_tokens": 5, "gpu_s": 0.5}
    return Line(**who | amounts | what)  # type: ignore[arg-type]


def no_word(said: str) -> None:
    raise AssertionError(said)


# What a request used


@pytest.mark.anyio
@pytest.mark.parametrize("more", [{}, {"stream": True}, {"n": 2}], ids=["whole", "streamed", "two choices"])
async def test_a_text_is_in_the_journal_before_its_last_chunk(tokenizer_folder: Path, more: dict[str, Any]) -> None:
    journal = Lines()
    async with serve(tokenizer_folder, FakeEngine(), tenants=TENANTS, journal=journal) as served:
        headers = {"authorization": f"Bearer {KEYS['alpha']}"}
        async with served.http.stream("POST", CHAT, json=BODY | more, headers=headers) as answer:
            async for text in answer.aiter_text():
                if 'finish_reason":"' in text:
                    assert len(journal.said) == 1
        prompt = len(await served.chat_ids("x"))
    (told,) = journal.said
    made = 5 * more.get("n", 1)
    assert (told.tenant, told.key, told.model, told.variant) == ("alpha", "file-1", MODEL, MODEL)
    assert journal.sums() == (1, prompt, CACHED_TOKENS, made, 5 * STEP_GPU_S)


@pytest.mark.anyio
async def test_prompts_of_one_request_are_one_request(tokenizer_folder: Path) -> None:
    journal = Lines()
    async with serve(tokenizer_folder, FakeEngine(), journal=journal) as served:
        body = {"model": MODEL, "prompt": [[1, 2, 3], [4, 5]], "max_tokens": 4}
        assert (await served.http.post("/v1/completions", json=body)).status_code == 200
    assert journal.sums() == (1, 5, 2 * CACHED_TOKENS, 8, 2 * 4 * STEP_GPU_S)
    assert journal.said[0].tenant == ""


@pytest.mark.anyio
async def test_who_leaves_pays_for_what_was_made_and_spent(tokenizer_folder: Path) -> None:
    """GPU-seconds come after the end, when the engine has ended it too, and add to what was told."""
    journal = Lines()
    async with serve(tokenizer_folder, FakeEngine(), journal=journal) as served:
        with served.connection(BODY | {"stream": True, "max_tokens": 3000}):
            await served.engine.until(lambda: served.engine.said_tokens > 3)
        await until(lambda: len(journal.said) == 2)
        await idle(served)
    requests, prompt, _, made, gpu_s = journal.sums()
    assert (requests, prompt > 0) == (1, True)
    assert made > 0, "as far as the router heard of it"
    assert gpu_s >= made * STEP_GPU_S
    assert journal.said[1].requests == 0


@pytest.mark.anyio
async def test_what_is_refused_or_never_began_costs_nothing(tokenizer_folder: Path) -> None:
    journal = Lines()
    async with serve(tokenizer_folder, FakeEngine(refuse="no"), tenants=TENANTS, journal=journal) as served:
        headers = {"authorization": f"Bearer {KEYS['beta']}"}
        assert (await served.http.post(CHAT, json=BODY)).status_code == 401
        assert (await served.http.post(CHAT, json=BODY, headers=headers)).status_code == 400
    assert journal.sums() == (1, 0, 0, 0, 0.0)


# From the journal into the store


def test_each_line_is_taken_over_once_however_often_that_is_tried(opened: Store, tmp_path: Path) -> None:
    journal = UsageJournal(tmp_path / "usage", no_word)
    for number in range(10):
        journal.add(line(number))
        if number % 3 == 0:
            stored_usage.absorb(opened, journal.path)
            stored_usage.absorb(opened, journal.path)
    stored_usage.absorb(opened, journal.path)
    journal.add(line(3600, key="other"))
    journal.sync()
    stored_usage.absorb(opened, journal.path)
    first, second = stored_usage.since(opened, 0.0)
    assert (first.hour_s, first.requests, first.prompt_tokens, first.gpu_s) == (7200, 10, 30, 5.0)
    assert (second.hour_s, second.key, second.requests) == (10800, "other", 1)
    assert stored_usage.since(opened, 10801.0) == [second]
    assert stored_usage.since(opened, 14400.0) == []
    journal.close()


def test_a_line_that_was_cut_in_the_middle_is_left_out(opened: Store, tmp_path: Path) -> None:
    journal = UsageJournal(tmp_path / "usage", no_word)
    journal.add(line())
    with journal.path.open("ab") as file:
        file.write(b'[7200.0,"alp')
    stored_usage.absorb(opened, journal.path)
    assert [hour.requests for hour in stored_usage.since(opened, 0.0)] == [1]
    journal.close()


def test_a_transaction_that_fails_leaves_the_lines_for_the_next(
    opened: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = UsageJournal(tmp_path / "usage", no_word)
    journal.add(line())

    def fails(*_: object) -> None:
        raise StoreError("the server went away")

    with monkeypatch.context() as patched:
        patched.setattr(stored_usage, "_take", _second(fails, stored_usage._take))
        with pytest.raises(StoreError):
            stored_usage.absorb(opened, journal.path)
    assert stored_usage.since(opened, 0.0) == []
    stored_usage.absorb(opened, journal.path)
    assert [hour.requests for hour in stored_usage.since(opened, 0.0)] == [1]
    journal.close()


def _second(fails: Callable[..., None], works: Callable[..., None]) -> Callable[..., None]:
    """Works at the first call, fails at the second: after the amounts were added."""
    calls = Counter[str]()

    def call(*given: Any) -> None:
        calls["all"] += 1
        (fails if calls["all"] == 2 else works)(*given)

    return call


def test_only_who_is_gone_is_taken_over_and_its_file_removed(opened: Store, tmp_path: Path) -> None:
    folder = tmp_path / "usage"
    alive, gone = UsageJournal(folder, no_word), UsageJournal(folder, no_word)
    for journal in (alive, gone):
        journal.add(line())
    gone.close()
    take_over_left(opened, folder)
    take_over_left(opened, folder)
    assert [hour.requests for hour in stored_usage.since(opened, 0.0)] == [1]
    assert list(folder.iterdir()) == [alive.path]
    alive.close()
    take_over_left(opened, folder)
    assert [hour.requests for hour in stored_usage.since(opened, 0.0)] == [2]
    assert not list(folder.iterdir())


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.integers(0, 1000), st.floats(0, 1e3)), max_size=40)
)
def test_hours_hold_the_sums_of_their_lines(lines: list[tuple[int, str, int, float]]) -> None:
    told = [line(hour * 3600, tenant=who, output_tokens=tokens, gpu_s=gpu_s) for hour, who, tokens, gpu_s in lines]
    hours = list(stored_usage._hours(told))
    assert sum(hour["requests"] for hour in hours) == len(lines)  # type: ignore[misc]
    for hour in hours:
        mine = [one for one in lines if (7200 + one[0] * 3600, one[1]) == (hour["hour_s"], hour["tenant"])]
        assert hour["output_tokens"] == sum(one[2] for one in mine)
        assert hour["gpu_s"] == pytest.approx(sum(one[3] for one in mine))


def test_a_disk_that_is_full_stops_no_answer_and_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    journal = UsageJournal(tmp_path, said.append)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(usage_journal.os, "write", full)
    journal.add(line())
    journal.add(line())
    assert len(said) == 1
    assert "usage is lost" in said[0]
    assert "No space left on device" in said[0]
    journal.close()


@pytest.mark.anyio
async def test_a_full_file_is_followed_by_another_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_journal, "FULL_BYTES", 200)
    late, folder = LateStore(sqlite_url(tmp_path / "store.sqlite")), tmp_path / "usage"
    keeper = UsageKeeper(late, folder, no_word)
    for number in range(20):
        keeper.add(line(number))
        await keeper._look()
    assert len(list(folder.iterdir())) == 1
    await keeper.close()
    assert [hour.requests for hour in stored_usage.since(late.opened(), 0.0)] == [20]
    assert not list(folder.iterdir())
    late.close()


# A router that is killed


async def answered(http: httpx.AsyncClient, body: dict[str, Any], key: str) -> bool:
    """Whether the whole answer came."""
    try:
        async with http.stream("POST", CHAT, json=body, headers={"authorization": f"Bearer {key}"}) as answer:
            text = "".join([text async for text in answer.aiter_text()])
    except httpx.HTTPError:
        return False
    return answer.status_code == 200 and ("[DONE]" in text if body.get("stream") else "usage" in json.loads(text))


def counted(url: str) -> Counter[str]:
    store = Store(url)
    take_over_left(store, store_path(url, FOLDER))
    usage = stored_usage.since(store, 0.0)
    store.close()
    return Counter({f"{one.tenant} {name}": getattr(one, name) for one in usage for name in stored_usage.AMOUNTS})


@pytest.mark.slow
@pytest.mark.anyio
async def test_after_a_kill_everything_that_was_answered_is_counted_exactly(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    """Two lives: the second takes over what the first left, and is killed too."""
    url, total = sqlite_url(tmp_path / "store.sqlite"), 0
    for _ in range(2):
        with router_process(tokenizer_folder, url, tmp_path) as server:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as http:
                asked = [
                    answered(http, BODY | {"stream": bool(number % 2)}, KEYS["alpha" if number % 3 else "beta"])
                    for number in range(60)
                ]
                assert all(await asyncio.gather(*asked))
                server.kill()
        total += 60
        now = counted(url)
        assert (now["alpha requests"], now["beta requests"]) == (total * 2 // 3, total // 3)
        assert now["alpha output_tokens"] == 5 * total * 2 // 3
        assert now["beta gpu_s"] == pytest.approx(5 * STEP_GPU_S * total // 3)


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_kill_in_the_midst_of_answers_loses_none_that_ended(tokenizer_folder: Path, tmp_path: Path) -> None:
    url, sent = sqlite_url(tmp_path / "store.sqlite"), 120
    with router_process(tokenizer_folder, url, tmp_path) as server:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as http:
            asked = [
                asyncio.ensure_future(answered(http, BODY | {"max_tokens": 5 + number, "stream": True}, KEYS["alpha"]))
                for number in range(sent)
            ]
            while sum(one.done() for one in asked) < sent // 3:
                await asyncio.sleep(0.001)
            server.kill()
            ended = sum(await asyncio.gather(*asked))
    assert sent // 3 <= ended < sent
    assert ended <= counted(url)["alpha requests"] <= sent


@pytest.mark.slow
@pytest.mark.anyio
async def test_of_two_routers_on_one_store_each_adds_its_own(tokenizer_folder: Path, tmp_path: Path, url: str) -> None:
    with (
        router_process(tokenizer_folder, url, tmp_path) as one,
        router_process(tokenizer_folder, url, tmp_path) as other,
    ):
        for server in (one, other):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as http:
                assert all(await asyncio.gather(*(answered(http, BODY, KEYS["alpha"]) for _ in range(30))))
        for server in (one, other):
            server.kill()
    assert counted(url)["alpha requests"] == 60
