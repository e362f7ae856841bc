"""A fleet is updated by its owner's command while it is used: does a good update lose anything, and a bad one?"""

import asyncio
import re
import subprocess
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.e2e.clients import Load, under
from tests.e2e.typed import DetachedFleet, detached_fleet, headrace

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1500)]

FLEET = """
models:
  - name: tiny
    source: tiny
    engine: {dtype: float32, max_model_len: 1024, max_num_seqs: 8, kv_cache_memory_bytes: 67108864}
    replicas: {min: 2, max: 2}
router: {port: {port}, replicas: 2}
scaling: {target_utilization: 0.5, hold_s: 5}
"""
BETTER = ("max_num_seqs: 8", "max_num_seqs: 6")
WORSE = ("max_num_seqs: 8", "max_num_seqs: 8, load_format: pt")
"""Of weights in a format that the checkpoint does not have: seen by the engine alone, when it starts."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DetachedFleet]:
    fleet = detached_fleet(tmp_path_factory.mktemp("deploy"), FLEET)
    fleet.start()
    yield fleet
    fleet.stop()


def deploy(fleet: DetachedFleet, change: tuple[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """`headrace deploy` of the fleet's file with one change."""
    file = fleet.file.with_name("changed.yaml")
    file.write_text(fleet.file.read_text().replace(*change))
    return headrace("deploy", str(file), *options, env=fleet.env, timeout_s=900.0)


def deployed(fleet: DetachedFleet, load: Load, change: tuple[str, str]) -> subprocess.CompletedProcess[str]:
    """The same while clients ask."""

    async def used() -> subprocess.CompletedProcess[str]:
        async with under(load, fleet.url, stream_tokens=900):
            return await asyncio.to_thread(deploy, fleet, change)

    return asyncio.run(used())


def test_updates_by_command_lose_nothing_and_a_bad_one_is_taken_back(
    fleet: DetachedFleet, record_property: Callable[[str, object], None]
) -> None:
    before = set(fleet.processes("ray::ServeReplica:headrace:engine-tiny"))
    shown = deploy(fleet, BETTER, "--diff")
    assert (shown.returncode, "~ models.tiny.engine.max_num_seqs: 8 -> 6" in shown.stdout) == (0, True), shown
    assert set(fleet.processes("ray::ServeReplica:headrace:engine-tiny")) == before, "to look changes nothing"

    good = Load(streams=3, quick=2)
    done = deployed(fleet, good, BETTER)
    record_property("good update", dict(good.outcomes))
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(good.outcomes) == {"whole"}
    again = deploy(fleet, BETTER)
    assert "nothing to change" in again.stdout

    bad = Load(streams=3, quick=2)
    failed = deployed(fleet, bad, WORSE)
    record_property("bad update", dict(bad.outcomes))
    record_property("said", [line for line in failed.stdout.splitlines() if re.match("[!✓]", line)])
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert failed.stderr == "headrace: the update failed, and what ran before runs again\n"
    assert set(bad.outcomes) == {"whole"}
    assert "nothing to change" in deploy(fleet, BETTER).stdout
    assert httpx.get(f"{fleet.url}/ready", trust_env=False).status_code == 200


def test_a_command_runs_as_a_job_of_the_run_s_ray(fleet: DetachedFleet) -> None:
    trace = fleet.file.with_name("trace.csv")
    rows = "".join(f"2024-05-10 00:00:{second:02d},100,20\n" for second in range(50))
    trace.write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}")
    asked = ["--trace", str(trace), "--fleet", str(fleet.file), "--json"]
    done = headrace("submit", "simulate", *asked, "--cpus", "0.1", env=fleet.env, timeout_s=300.0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"requests": 50' in done.stdout
    assert done.stdout.endswith("is done\n")
    wrong = headrace("submit", "simulate", "--trace", "/nowhere.csv", "--cpus", "0.1", env=fleet.env, timeout_s=300.0)
    assert wrong.returncode == 2, wrong.stdout + wrong.stderr
