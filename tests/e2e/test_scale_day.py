"""From nothing to three replicas and back on real, slowed engines: is a request lost, and was it foreseen?"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

import httpx
import numpy as np
import pytest

from autoscaling import Targets
from benchmarks.pace import STEP_S
from cluster import runs
from cluster.engine_memory import EngineSettings
from deployments.declare import APPLICATION
from headrace.serve_rest import ServeRest, of_run
from simulation.fleet import simulate
from simulation.outcome import Run
from simulation.policy import headrace
from simulation.setup import Setup
from simulation.trace import Trace
from tests.e2e.typed import DetachedFleet, detached_fleet

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1500)]

SLOTS, CONTEXT_TOKENS, CACHE_BYTES, MOST = 4, 256, 67108864, 3
ANSWER_TOKENS = 20
TARGETS = Targets(ttft_s=2.0, token_s=0.2, hold_s=15.0)
FLEET = f"""
models:
  - name: tiny
    source: tiny
    engine:
      dtype: float32
      max_model_len: {CONTEXT_TOKENS}
      max_num_seqs: {SLOTS}
      kv_cache_memory_bytes: {CACHE_BYTES}
      scheduler_cls: benchmarks.paced.PacedScheduler
    replicas: {{min: 0, max: {MOST}}}
router: {{port: {{port}}}}
scaling: {{ttft_s: {TARGETS.ttft_s}, token_s: {TARGETS.token_s}, hold_s: {TARGETS.hold_s}}}
"""
PATIENCE_S = 240.0
LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class Look:
    """What Serve says of the engines at a moment."""

    at_s: float
    wanted: int
    running: int


@dataclass
class Day:
    """Clients, what became of their requests, and what Serve did meanwhile."""

    url: str
    rest: ServeRest
    began_s: float = field(default_factory=time.monotonic)
    sent: list[tuple[float, int]] = field(default_factory=list)
    """When, and tokens of the prompt."""
    ended_s: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)

    @property
    def now_s(self) -> float:
        return time.monotonic() - self.began_s

    async def look_on(self) -> None:
        while True:
            found = await asyncio.to_thread(self.rest.applications)
            if (ours := found.get(APPLICATION)) and (engines := ours["deployments"].get("engine-tiny")):
                states = [replica["state"] for replica in engines["replicas"]]
                self.looks.append(Look(self.now_s, engines["target_num_replicas"], states.count("RUNNING")))
            await asyncio.sleep(LOOK_S)

    async def until(self, happened: Callable[[Look], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not self.looks or not happened(self.looks[-1]):
                await asyncio.sleep(LOOK_S)

    @asynccontextmanager
    async def streams(self, count: int) -> AsyncIterator[None]:
        """So many clients that ask one thing after the other, to the end of the block and of what they asked."""
        going = True

        async def client(http: httpx.AsyncClient) -> None:
            while going:
                await self._ask(http)

        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_S, trust_env=False, limits=limits) as http:
            asked = [asyncio.ensure_future(client(http)) for _ in range(count)]
            try:
                yield
            finally:
                going = False
                await asyncio.gather(*asked)

    async def _ask(self, http: httpx.AsyncClient) -> None:
        body = {"model": "tiny", "prompt": "A class is", "max_tokens": ANSWER_TOKENS, "ignore_eos": True}
        sent_s = self.now_s
        answer = await http.post("/v1/completions", json=body)
        if answer.status_code != 200 or answer.json()["usage"]["completion_tokens"] != ANSWER_TOKENS:
            self.wrong.append(f"{answer.status_code}: {answer.text[-200:]}")
            return
        self.sent.append((sent_s, answer.json()["usage"]["prompt_tokens"]))
        self.ended_s.append(self.now_s)

    async def rate(self, lasting_s: float) -> float:
        """Answers per second that come from now on."""
        before, began_s = len(self.ended_s), self.now_s
        await asyncio.sleep(lasting_s)
        return (len(self.ended_s) - before) / (self.now_s - began_s)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DetachedFleet]:
    root = str(Path(__file__).parents[2])
    fleet = detached_fleet(tmp_path_factory.mktemp("day"), FLEET)
    fleet.env["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [fleet.env.get("PYTHONPATH")])])
    fleet.start()
    yield fleet
    fleet.stop()


async def live(day: Day, rates: dict[str, float]) -> None:
    """Idle, one client, a full engine, three times as many clients, idle, and one client again."""
    looking = asyncio.ensure_future(day.look_on())
    try:
        await day.until(lambda look: look.wanted == look.running == 0)
        async with day.streams(1):
            await day.until(lambda look: look.running == 1)
        async with day.streams(SLOTS):
            rates["one"] = await day.rate(8.0)
        async with day.streams(MOST * SLOTS + SLOTS):
            await day.until(lambda look: look.running == MOST)
            rates["three"] = await day.rate(15.0)
        await day.until(lambda look: look.wanted == look.running == 0)
        async with day.streams(1):
            await day.until(lambda look: look.running == 1)
    finally:
        looking.cancel()


def foreseen(day: Day, starts: list[float]) -> Run:
    """The same arrivals in the simulator, from the first one on."""
    sent = sorted(day.sent)
    at_s = np.array([at_s for at_s, _ in sent])
    trace = Trace(
        at_s=at_s - at_s[0],
        prompt_tokens=np.array([tokens for _, tokens in sent], dtype=np.int32),
        output_tokens=np.full(len(sent), ANSWER_TOKENS, dtype=np.int32),
    )
    settings = EngineSettings(
        max_sequences=SLOTS, batched_tokens=2048, context_tokens=CONTEXT_TOKENS, cache_bytes=CACHE_BYTES
    )
    setup = Setup(
        settings=settings,
        kv_blocks=1000,
        step=lambda chunks: STEP_S,
        plans_ahead=False,
        startup_s=median(starts),
        starts_s=tuple(starts),
        max_replicas=MOST,
        begins_with=0,
    )
    return simulate(trace, setup, headrace(TARGETS), TARGETS)


def starts_s(looks: list[Look]) -> list[float]:
    """Seconds that each replica took to start, in the order in which they were wished for: first come, first there."""
    asked, found = list[float](), list[float]()
    for before, after in pairwise(looks):
        asked += [after.at_s] * (after.wanted - before.wanted)
        for _ in range(after.running - before.running):
            found.append(after.at_s - asked.pop(0))
        # What is wished for no more is what was asked for last.
        asked = asked[: max(0, after.wanted - after.running)]
    return found


def turns(series: list[tuple[float, int]]) -> str:
    """When a number became another, from its first value on."""
    changed = [series[0], *(after for before, after in pairwise(series) if after[1] != before[1])]
    return ", ".join(f"{at_s:.0f} s: {number}" for at_s, number in changed)


def wished(run: Run, at_s: float) -> int:
    """What the simulated policy had said at a moment."""
    return next((change.replicas for change in reversed(run.changes) if change.at_s <= at_s), 0)


def test_a_day_from_nothing_to_three_and_back_loses_nothing_and_goes_as_foreseen(
    fleet: DetachedFleet, record_property: Callable[[str, object], None]
) -> None:
    run = runs.read(fleet.state / "runs", "default")
    assert run is not None
    day, rates = Day(fleet.url, of_run(run)), dict[str, float]()
    try:
        asyncio.run(live(day, rates))
    finally:
        day.rest.close()
        record_property("requests", f"{len(day.ended_s)} answered, {len(day.wrong)} not")
        record_property("answers per second", {name: round(rate, 2) for name, rate in rates.items()})
    assert not day.wrong
    assert rates["three"] >= 2.7 * rates["one"]

    first_s = min(at_s for at_s, _ in day.sent)
    looks = [look for look in day.looks if look.at_s >= first_s]
    starts = starts_s(looks)
    run_foreseen = foreseen(day, starts)
    pairs = [(look.wanted, wished(run_foreseen, look.at_s - first_s)) for look in looks]
    near = sum(abs(wanted - said) <= 1 for wanted, said in pairs) / len(pairs)
    record_property("starts of replicas, s", [round(each_s, 1) for each_s in starts])
    record_property("wished", turns([(look.at_s - first_s, look.wanted) for look in looks]))
    record_property("ran", turns([(look.at_s - first_s, look.running) for look in looks]))
    record_property("foreseen", turns([(change.at_s, change.replicas) for change in run_foreseen.changes]))
    record_property("moments within one replica of the simulated wish", f"{near:.1%} of {len(pairs)}")
    record_property("the same wish", f"{sum(wanted == said for wanted, said in pairs) / len(pairs):.1%}")
    assert near >= 0.95
