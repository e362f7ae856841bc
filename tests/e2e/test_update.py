"""A fleet is updated and shrinks while it is used. Does any client notice?"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster import runs
from cluster.runs import Run
from deployments.declare import APPLICATION, schema
from deployments.fleet import Fleet
from headrace.kept_logs import keep_logs
from headrace.serve_rest import ServeRest, of_run
from tests.e2e.clients import Load, under
from tests.e2e.typed import detached_fleet

CHANGE_S = 600.0
"""Two engines end and start, one after the other."""
pytestmark = [pytest.mark.prove, pytest.mark.timeout(1500)]

CONTEXT_TOKENS = 2048
FLEET = f"""
models:
  - name: tiny
    source: tiny
    engine: {{dtype: float32, max_model_len: {CONTEXT_TOKENS}, max_num_seqs: 8, kv_cache_memory_bytes: 67108864}}
    replicas: {{min: 2, max: 2}}
router: {{port: {{port}}, replicas: 2}}
scaling: {{target_utilization: 0.5, hold_s: 5}}
"""
CHEAPER = {"name": "router", "ray_actor_options": {"num_cpus": 0.4}}
"""Options that replace routers and nothing else."""


@dataclass(frozen=True)
class Running:
    """A fleet that serves."""

    run: Run
    rest: ServeRest

    @property
    def url(self) -> str:
        return self.run.url

    def put(self, change: Callable[[Fleet], Fleet], *deployments: dict[str, Any]) -> None:
        """Gives Serve the fleet anew: changed, or with options of single deployments."""
        now = Fleet.model_validate(self._application()["deployed_app_config"]["args"])
        changed = schema(change(now))
        changed["applications"][0]["deployments"] = list(deployments)
        self.rest.deploy(changed)

    def replicas(self, deployment: str) -> dict[str, str]:
        """States by replica, those that are ending among them."""
        found = self._application()["deployments"].get(deployment, {"replicas": []})["replicas"]
        return {replica["replica_id"]: replica["state"] for replica in found}

    def serving(self, deployment: str) -> set[str]:
        """The replicas of a deployment that does not change just now."""
        states = self.replicas(deployment)
        return set(states) if set(states.values()) == {"RUNNING"} else set()

    def _application(self) -> dict[str, Any]:
        return self.rest.applications()[APPLICATION]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    detached = detached_fleet(tmp_path_factory.mktemp("fleet"), FLEET)
    detached.start()
    running = _running(detached.state)
    yield running
    running.rest.close()
    detached.stop()


def _running(state: Path) -> Running:
    run = runs.read(state / "runs", "default")
    assert run is not None
    return Running(run, of_run(run))


def test_updates_and_a_scale_down_under_load_lose_nothing_and_cut_nothing(
    fleet: Running, record_property: Callable[[str, object], None]
) -> None:
    load = Load(streams=6, quick=3)
    try:
        seconds = asyncio.run(_a_day(fleet, load))
        assert set(load.outcomes) == {"whole"}
    except BaseException:
        record_property("logs", str(keep_logs(fleet.run)))
        raise
    finally:
        record_property("outcomes", dict(load.outcomes))
    for name, value in seconds.items():
        record_property(name, f"{value:.0f} s")
    record_property("streams", f"{len(load.stream_s)}, the longest {max(load.stream_s):.0f} s")
    record_property("short requests", f"{len(load.quick_s)}, the longest {max(load.quick_s):.1f} s")
    assert len(load.stream_s) >= 8
    assert len(load.quick_s) > 100


async def _a_day(fleet: Running, load: Load) -> dict[str, float]:
    """Seconds of each change; `load` says what clients saw during all of them."""
    seconds: dict[str, float] = {}

    @asynccontextmanager
    async def change(name: str) -> AsyncIterator[None]:
        began_s = time.monotonic()
        yield
        seconds[name] = time.monotonic() - began_s

    async with under(load, fleet.url, stream_tokens=CONTEXT_TOKENS - 48):
        await _until(lambda: len(fleet.serving("engine-tiny")) == 2)
        engines = fleet.serving("engine-tiny")
        async with change("routers replaced"):
            await _replaced(fleet, "router", lambda: fleet.put(_as_it_is, CHEAPER))
        assert fleet.serving("engine-tiny") == engines, "engines that did not change went on"
        async with change("engines and routers replaced"):
            await _replaced(fleet, "engine-tiny", lambda: fleet.put(_other_settings, CHEAPER))
            await _until(lambda: len(fleet.serving("router")) == 2)
        load.streams = load.quick = 1
        async with change("engines and routers from 2 to 1"):
            await asyncio.to_thread(fleet.put, _other_settings, *_at_least_one(fleet))
            await _until(lambda: len(fleet.serving("engine-tiny")) == len(fleet.serving("router")) == 1)
    return seconds


async def _replaced(fleet: Running, deployment: str, update: Callable[[], None]) -> None:
    """Updates, and waits until two others serve instead and the old ones have ended."""
    before = fleet.serving(deployment)
    assert len(before) == 2
    await asyncio.to_thread(update)
    await _until(lambda: len(now := fleet.serving(deployment)) == 2 and not now & before)


def _as_it_is(fleet: Fleet) -> Fleet:
    return fleet


def _other_settings(fleet: Fleet) -> Fleet:
    """Another engine argument, and another setting of the routers."""
    (model,) = fleet.models
    model = model.model_copy(update={"engine": model.engine | {"max_num_seqs": 6}})
    router = fleet.router.model_copy(update={"max_queued_requests": 512})
    return fleet.model_copy(update={"models": [model], "router": router})


def _at_least_one(fleet: Running) -> Iterator[dict[str, Any]]:
    """Options by which the policy may take an engine away, and must take a router: in place, nothing starts anew."""
    for name, most, more in (("engine-tiny", 2, {}), ("router", 1, CHEAPER)):
        scaled = fleet.rest.applications()[APPLICATION]["deployments"][name]["deployment_config"]["autoscaling_config"]
        yield more | {"name": name, "autoscaling_config": scaled | {"min_replicas": 1, "max_replicas": most}}


async def _until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(CHANGE_S):
        while not await asyncio.to_thread(happened):
            await asyncio.sleep(0.5)
