"""Is a core that died or hangs found in time, are its requests free at once, and is nothing of it left?"""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from logging.handlers import MemoryHandler
from pathlib import Path
from time import monotonic

import psutil
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from deployments.core_watch import HUNG_S, LOOK_S, MARGIN, PROBE_S, CoreWatch, Quiet, patience_s
from deployments.frames import BEAT_S, Submit
from deployments.lane import Lane
from deployments.link import RouterEnd
from deployments.replica import Replica
from tests.deployments.fake_engine import FakeEngine, expected
from tests.deployments.lane_ends import read

looks = st.lists(st.floats(0.0, LOOK_S), min_size=1, max_size=200)
"""Seconds between looks of a process that is not held up."""


@given(looks, st.integers(1, 6), st.booleans())
def test_a_core_that_makes_a_step_now_and_then_is_not_hung(gaps_s: list[float], every: int, busy: bool) -> None:
    """With a step in every sixth look at least, there are no 3 s without one."""
    quiet = Quiet()
    for number, gap_s in enumerate(gaps_s):
        quiet.look(gap_s, steps=1 + number // every, busy=busy)
        assert quiet.busy_s <= patience_s(0.0)


@given(looks, st.floats(0.0, 20.0))
def test_a_core_with_work_counts_as_hung_when_patience_is_over_and_not_before(
    gaps_s: list[float], step_s: float
) -> None:
    quiet, passed_s = Quiet(), 0.0
    for gap_s in gaps_s:
        quiet.look(gap_s, steps=0, busy=True)
        passed_s += gap_s
        assert (quiet.busy_s > patience_s(step_s)) == (passed_s > patience_s(step_s))


@given(looks, st.floats(0.0, 1e6))
def test_a_process_that_stood_still_itself_accuses_nobody_for_that(gaps_s: list[float], stop_s: float) -> None:
    quiet = Quiet()
    for gap_s in gaps_s:
        quiet.look(gap_s, steps=0, busy=True)
    before_s = quiet.busy_s
    quiet.look(stop_s, steps=0, busy=True)
    assert quiet.busy_s <= before_s + 2 * LOOK_S < before_s + HUNG_S


@given(looks)
def test_idle_time_is_no_hanging_and_work_that_was_given_up_hides_none(gaps_s: list[float]) -> None:
    quiet = Quiet()
    for gap_s in gaps_s:
        quiet.look(gap_s, steps=0, busy=True)
    busy_s = quiet.busy_s
    for gap_s in gaps_s:
        quiet.look(gap_s, steps=0, busy=False)
    assert quiet.busy_s == quiet.idle_s == busy_s
    quiet.look(LOOK_S, steps=1, busy=True)
    assert quiet.busy_s == quiet.idle_s == 0.0


@given(st.floats(0.0, 1e4), st.floats(0.0, 1e4))
def test_patience_grows_with_the_step(one_s: float, other_s: float) -> None:
    for step_s in (one_s, other_s):
        assert patience_s(step_s) == max(HUNG_S, MARGIN * step_s)
    assert (patience_s(one_s) <= patience_s(other_s)) or one_s > other_s


@dataclass
class StillCore:
    """A core that makes no step."""

    work: int = 0
    is_dead: bool = False
    probes: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    tell: Callable[[], None] = lambda: None
    reasons: list[str] = field(default_factory=list)

    def dead(self) -> bool:
        return self.is_dead

    def on_death(self, tell: Callable[[], None]) -> None:
        self.tell = tell

    def unfinished(self) -> int:
        return self.work

    def steps(self) -> int:
        return 0

    def step_s(self) -> float:
        return 1.0

    async def probe(self) -> None:
        self.probes += 1
        self.news.set()
        raise RuntimeError("it said nothing")

    def gone(self, reason: str) -> None:
        self.reasons.append(reason)
        self.news.set()

    async def hear(self) -> None:
        async with asyncio.timeout(4 * LOOK_S):
            await self.news.wait()
        self.news.clear()


@pytest.mark.anyio
async def test_a_death_is_told_once_and_at_once() -> None:
    core = StillCore()
    CoreWatch(core, core.gone)
    core.tell()
    core.is_dead = True
    core.tell()
    assert core.reasons == ["engine core died"]


@pytest.mark.anyio
async def test_a_death_of_which_nobody_told_is_seen() -> None:
    core = StillCore(is_dead=True)
    CoreWatch(core, core.gone)
    await core.hear()
    assert core.reasons == ["engine core died"]


@pytest.mark.anyio
async def test_a_core_with_work_that_makes_no_step_is_hung() -> None:
    core = StillCore(work=1)
    watch = CoreWatch(core, core.gone)
    watch._quiet.busy_s = patience_s(core.step_s())
    await core.hear()
    assert core.reasons[0].startswith("engine core hung: no step for 4.")


@pytest.mark.anyio
@pytest.mark.parametrize(("work", "idle_s", "busy_s"), [(0, PROBE_S, 0.0), (1, 0.0, HUNG_S / 2 + LOOK_S)])
async def test_a_quiet_core_is_probed_and_not_blamed_for_the_answer(work: int, idle_s: float, busy_s: float) -> None:
    """With work too, before it is given up: what makes no step may be a request that vLLM lost."""
    core = StillCore(work)
    watch = CoreWatch(core, core.gone)
    watch._quiet.idle_s, watch._quiet.busy_s = idle_s, busy_s
    await core.hear()
    assert (core.probes, core.reasons) == (1, [])
    watch.close()


@pytest.mark.anyio
async def test_who_ends_an_engine_is_not_told_that_it_ended() -> None:
    core = StillCore()
    CoreWatch(core, core.gone).close()
    core.tell()
    assert core.reasons == []


ENGINE = """
import sys
import uvloop
from tests.deployments import test_core_watch

if __name__ == "__main__":
    uvloop.run(test_core_watch.serve(*sys.argv[1:]))
"""


async def serve(folder: str, router_key: str, log_file: str) -> None:
    """A replica without Ray, in a process of its own: says where it is and who its processes are."""
    from deployments import engine as deployment
    from deployments.engine import Engine
    from deployments.fleet import Model

    deployment._name = lambda: "tiny"

    # As Serve logs.
    logging.getLogger("ray.serve").addHandler(MemoryHandler(1, target=logging.FileHandler(log_file)))
    arguments = {"dtype": "float32", "max_num_seqs": 8, "kv_cache_memory_bytes": 64 << 20}
    engine = object.__new__(Engine.func_or_class)
    await engine.__init__(Model(name="tiny", source=folder, engine=arguments), 1)
    engine._link.allow(bytes.fromhex(router_key))
    core, worker = engine._engine._processes
    said = {"address": engine._link.address, "key": engine._link.public_key.hex(), "core": core.pid}
    print(json.dumps(said | {"worker": worker.pid}), flush=True)
    await asyncio.Event().wait()


@dataclass(frozen=True)
class Alone:
    """A replica in a process of its own, and what it is made of."""

    link: Callable[..., RouterEnd]
    core: psutil.Process
    worker: psutil.Process
    family: list[psutil.Process]

    def join(self, lane: Lane) -> None:
        lane.join(Replica("real", {"max_model_len": 2048}), self.link)

    def all_ended(self) -> bool:
        _, alive = psutil.wait_procs(self.family, timeout=5)
        return not alive


@contextmanager
def alone(folder: Path, script: Path, log_file: Path) -> Iterator[Alone]:
    keys = zmq.curve_keypair()
    script.write_text(ENGINE)
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(script), str(folder), keys[0].hex(), str(log_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        said = json.loads(next(line for line in process.stdout if line.startswith('{"address"')))
        replica = psutil.Process(process.pid)
        family = [replica, *replica.children(recursive=True)]
        link = partial(RouterEnd, address=said["address"], engine_key=bytes.fromhex(said["key"]), keys=keys)
        try:
            yield Alone(link, psutil.Process(said["core"]), psutil.Process(said["worker"]), family)
        finally:
            for left in family:
                if left.is_running():
                    left.kill()


async def until(happened: Callable[[], object], limit_s: float) -> float:
    """Seconds until something happened."""
    began_s = monotonic()
    while not happened():
        assert monotonic() - began_s < limit_s
        await asyncio.sleep(0.005)
    return monotonic() - began_s


FOUND_S = {signal.SIGKILL: 1.0, signal.SIGTERM: HUNG_S + 2 * LOOK_S, signal.SIGSTOP: HUNG_S + 2 * LOOK_S}
"""How soon a core or worker is known to be gone; a signal's way, a busy machine and a frame's way come on top.

A worker that is told to end may take its time; no step is made meanwhile.
"""


@pytest.mark.prove
@pytest.mark.anyio
@pytest.mark.parametrize("blow", [signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("victim", ["core", "worker"])
async def test_routers_hear_of_it_requests_go_on_elsewhere_and_nothing_is_left(
    tmp_path: Path, victim: str, blow: signal.Signals, record_property: Callable[[str, object], None]
) -> None:
    from headrace.fetching import resolve

    log: list[str] = []
    folder, lane = resolve("tiny"), Lane("tiny", max_queued_requests=100, log=log.append)
    log_file = tmp_path / "replica.log"
    with alone(folder, tmp_path / "engine.py", log_file) as replica:
        replica.join(lane)
        sampling = {"max_tokens": 1900, "ignore_eos": True, "temperature": 0.0}
        begun = lane.enter([5, 6, 7], sampling, stream=True, news=asyncio.Event())
        body = {"model": "tiny", "prompt": "A list", "logprobs": 1} | sampling
        headers = [("content-type", "application/json")]
        call = lane.call("/v1/completions", headers, json.dumps(body).encode(), 5)
        await until(lambda: list(begun.take()), 30.0)
        unread = lane.enter([8, 9], sampling, stream=False, news=asyncio.Event())
        await until(lambda: lane.replicas["real"].load.running_requests == 3, 5.0)

        os.kill(getattr(replica, victim).pid, blow)
        found_s = await until(lambda: "real" not in lane.replicas, FOUND_S[blow] + BEAT_S + 1.0)
        record_property(f"{blow.name} of the {victim}: routers know after, s", round(found_s, 2))
        assert log == ["tiny: replica real said goodbye; 3 requests were on it"]
        assert read(begun), "what came is given first"
        assert isinstance(begun.order, Submit)
        assert (begun.attempt, begun.order.said_ids) == (1, list(begun.so_far.token_ids))
        lane.leave(begun)  # The next engine is none that could go on with a real one's text.

        other = FakeEngine()
        other.join(lane)
        await until(lambda: not unread.open_choices and call.part is not None, 10.0)
        assert "".join(delta.text for delta in unread.whole()) == expected([8, 9], max_tokens=1900).text
        part = call.take_part()
        assert part is not None
        assert (part.status, [call.attempt for call in other.calls]) == (200, [1])
        assert await asyncio.to_thread(replica.all_ended)
        said = log_file.read_text()
        assert said.startswith(("tiny: engine core died", "tiny: engine core hung"))
        assert said.startswith("tiny: engine core hung") or blow is not signal.SIGSTOP
        lane.close()
        other.close()
