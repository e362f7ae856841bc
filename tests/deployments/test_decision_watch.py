"""Do decisions get from the real policy's journal into metrics and a real store, whatever fails on the way?"""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from ray import cloudpickle

from autoscaling import JOURNAL, Cursor, Entry
from deployments import controller, decision_watch
from deployments.fleet import sqlite_url
from deployments.late_store import LateStore
from deployments.scaling_metrics import ScalingMetrics
from deployments.store import Store
from tests.autoscaling.asked_by_serve import ENGINE, Application
from tests.deployments.decision_entries import entry

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_watch, "LOOK_S", 0.001)


async def journal(cursor: Cursor) -> tuple[Cursor, list[Entry]]:
    """By the function that is sent to Serve's controller, as Ray ships it."""
    read = cloudpickle.loads(cloudpickle.dumps(controller._reader()))
    return read(object(), JOURNAL, cursor)


class Watched:
    """A watch over what `ask` and `keep` do."""

    def __init__(self, ask: decision_watch.Ask, keep: decision_watch.Keep | None) -> None:
        self.registry, self.said = CollectorRegistry(), list[str]()
        metrics = ScalingMetrics(self.registry)
        self.task = asyncio.ensure_future(decision_watch.watch(ask, keep, metrics.decided, self.said.append))

    async def until(self, condition) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.001)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"model": "tiny", **labels})

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


async def test_what_the_policy_decides_is_stored_and_counted(tmp_path: Path) -> None:
    url, application = sqlite_url(tmp_path / "store.sqlite"), Application(ENGINE)
    store = Store(url)
    application.targets[ENGINE] = 1
    application.queue(11.0)
    application.run(ENGINE, running=10.0)
    application.tick()
    watched = Watched(journal, decision_watch.keeper(LateStore(url)))
    await watched.until(lambda: len(store.decisions(since_s=0.0)) == 1)
    application.queue(0.0)
    for _ in range(64):
        application.run(ENGINE, running=0.0)
        application.tick(1.0)
    await watched.until(lambda: watched.value("headrace_wanted_replicas") == 0)
    await watched.until(lambda: store.decisions(since_s=0.0)[-1]["wanted"] == 0)
    await watched.end()
    wanted = [kept["wanted"] for kept in store.decisions(since_s=0.0)]
    assert (wanted[0], wanted[-1]) == (3, 0)
    assert watched.value("headrace_scale_decisions_total", direction="up") == 1
    downs = watched.value("headrace_scale_decisions_total", direction="down") or 0
    assert downs == sum(after < before for before, after in pairwise(wanted))
    assert watched.said == []


async def test_what_a_failing_store_did_not_take_is_stored_when_it_is_back() -> None:
    stored, attempts = list[Entry](), 0
    told = [[entry(1.0)], [entry(2.0, 2)]]

    def keep(entries: Sequence[Entry]) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 5:
            raise OSError("disk full")
        stored.extend(entries)

    async def ask(cursor: Cursor) -> tuple[Cursor, list[Entry]]:
        return cursor, told.pop(0) if told else []

    watched = Watched(ask, keep)
    await watched.until(lambda: stored)
    await watched.end()
    assert stored == [entry(1.0), entry(2.0, 2)]
    assert watched.said == ["scale decisions are not stored now: OSError: disk full"]
    assert watched.value("headrace_wanted_replicas") == 2


async def test_without_a_store_the_metrics_still_tell() -> None:
    told = [[entry(1.0, 3)]]

    async def ask(cursor: Cursor) -> tuple[Cursor, list[Entry]]:
        return cursor, told.pop(0) if told else []

    watched = Watched(ask, None)
    await watched.until(lambda: watched.value("headrace_wanted_replicas") == 3)
    await watched.end()
    assert watched.value("headrace_scale_decisions_total", direction="up") == 1
    assert watched.said == []


async def test_a_controller_that_is_away_or_silent_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_watch, "ANSWER_S", 0.01)
    asked = 0

    async def ask(cursor: Cursor) -> tuple[Cursor, list[Entry]]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise ValueError("no such actor")
        if asked == 2:
            await asyncio.Event().wait()
        return cursor, [entry(1.0)] if asked == 3 else []

    watched = Watched(ask, None)
    await watched.until(lambda: watched.value("headrace_wanted_replicas") == 1)
    await watched.end()
    assert len(watched.said) == 2
