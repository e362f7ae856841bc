"""Does a fleet over several machines lose anything when a machine, its head or a cable goes?"""

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from headrace.fetching import resolve
from headrace.serve_rest import ServeRest
from tests.e2e.clients import Load, under
from tests.e2e.nodes import DASHBOARD_PORT, Machine, Machines, machines, ray_head, ray_node, until, why_not
from tests.e2e.typed import headrace

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1800)]

TOKEN = "6e6f6465" * 8
STREAMS = 100
ANSWER_TOKENS = 400
PORT = 8000
FLEET = """
models:
  - name: tiny
    source: {source}
    engine: {{dtype: float32, max_model_len: 1024, max_num_seqs: 128, kv_cache_memory_bytes: 268435456}}
    replicas: {{min: 2, max: 2}}
router: {{host: 0.0.0.0, port: {port}, replicas: 2}}
"""
STARTS_S = 600.0
HEAD_GONE_S = 60.0
CUT_S = 10.0


@dataclass
class Cluster:
    """A head and two nodes, each of which has room for an engine and a router."""

    made: Machines
    folder: Path
    env: dict[str, str]
    rest: ServeRest

    def machine(self, name: str) -> Machine:
        return self.made.by_name[name]

    def url(self, name: str) -> str:
        return f"http://{self.machine(name).address}:{PORT}"

    def start_head(self) -> None:
        ray_head(self.machine("head"), folder=self.folder / "head", core=0, env=self.env)
        until(self.rest.is_up, "Ray's head")

    def start_node(self, name: str, core: int) -> None:
        ray_node(self.machine(name), self.machine("head"), folder=self.folder / name, core=core, cpus=2, env=self.env)

    def deploy(self, *options: str) -> subprocess.CompletedProcess[str]:
        """The fleet's file, by the command."""
        where = ("--address", self.rest.url, "--token-file", str(self.folder / "token"))
        return headrace("deploy", str(self.folder / "fleet.yaml"), *where, *options, env=self.env, timeout_s=STARTS_S)

    def engines(self, name: str) -> int:
        """That the router on this machine has."""
        try:
            text = httpx.get(f"{self.url(name)}/metrics", trust_env=False, timeout=5.0).text
        except httpx.HTTPError:
            return 0
        return sum(line.startswith("headrace_replica_running_requests{") for line in text.splitlines())

    def is_whole(self) -> bool:
        return self.engines("a") == self.engines("b") == 2


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    (folder / "fleet.yaml").write_text(FLEET.format(source=resolve("tiny"), port=PORT))
    chosen = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token"), "RAY_worker_niceness": "0"}
    ours |= {"PYTHONPATH": str(Path(__file__).parents[2]), "HEADRACE_STATE": str(folder / "state")}
    ours |= {"HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0", "VLLM_LOGGING_LEVEL": "WARNING"}
    with machines(folder) as made:
        for name in ("head", "a", "b"):
            made.add(name)
        rest = ServeRest(f"http://{made.by_name['head'].address}:{DASHBOARD_PORT}", TOKEN)
        cluster = Cluster(made, folder, chosen | ours, rest)
        cluster.start_head()
        for core, name in enumerate(("a", "b")):
            cluster.start_node(name, core)
        done = cluster.deploy("--timeout", f"{STARTS_S:g}")
        assert done.returncode == 0, done.stdout + done.stderr
        until(cluster.is_whole, "both engines at both routers")
        yield cluster
        rest.close()
        for name, machine in made.by_name.items():
            machine.end()
            shutil.rmtree(folder / name, ignore_errors=True)


@dataclass
class Said:
    """A stream to its end."""

    text: str = ""
    tokens: int = 0
    wrong: str = ""


async def stream(http: httpx.AsyncClient, number: int, begun: Counter[int]) -> Said:
    """One answer; `begun` counts what came of it."""
    body = {"model": "tiny", "prompt": f"A class is {number}", "max_tokens": ANSWER_TOKENS, "ignore_eos": True}
    body |= {"temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    said = Said()
    try:
        async with http.stream("POST", "/v1/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    said.wrong = line
                    return said
                said.text += "".join(choice["text"] for choice in event["choices"])
                begun[number] += 1
                if event.get("usage"):
                    said.tokens = event["usage"]["completion_tokens"]
    except httpx.HTTPError as error:
        said.wrong = repr(error)
    return said


async def streams(url: str, meanwhile: Callable[[], object] | None = None) -> list[Said]:
    """STREAMS at once; `meanwhile` happens when all have begun."""
    begun = Counter[int]()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=STARTS_S, trust_env=False, limits=limits) as http:
        asked = [asyncio.ensure_future(stream(http, number, begun)) for number in range(STREAMS)]
        if meanwhile is not None:
            while len(begun) < STREAMS and not all(one.done() for one in asked):
                await asyncio.sleep(0.02)
            assert not any(one.done() for one in asked), "too short to be disturbed"
            await asyncio.to_thread(meanwhile)
        return list(await asyncio.gather(*asked))


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster) -> list[Said]:
    said = asyncio.run(streams(cluster.url("a")))
    assert not any(one.wrong for one in said)
    return said


def continued(cluster: Cluster) -> int:
    """Streams that went on elsewhere, by the router on a."""
    text = httpx.get(f"{cluster.url('a')}/metrics", trust_env=False).text
    lines = [line for line in text.splitlines() if line.startswith("headrace_continuations_total")]
    return int(sum(float(line.split()[-1]) for line in lines))


def test_a_cable_that_is_pulled_for_a_while_loses_and_doubles_nothing(
    cluster: Cluster, undisturbed: list[Said], record_property: Callable[[str, object], None]
) -> None:
    def cut() -> None:
        cluster.machine("b").cut()
        time.sleep(CUT_S)
        cluster.machine("b").plug()

    before = continued(cluster)
    assert asyncio.run(streams(cluster.url("a"), cut)) == undisturbed
    record_property("streams that went on elsewhere when a cable was pulled for 10 s", continued(cluster) - before)
    healed_s = until(cluster.is_whole, "both engines at both routers")
    record_property("whole again, s after the answers", round(healed_s, 1))
    assert asyncio.run(streams(cluster.url("b"))) == undisturbed


def test_a_node_that_dies_under_a_hundred_streams_loses_none(
    cluster: Cluster, undisturbed: list[Said], record_property: Callable[[str, object], None]
) -> None:
    before = continued(cluster)
    assert asyncio.run(streams(cluster.url("a"), cluster.machine("b").kill)) == undisturbed
    record_property("streams that went on elsewhere when a node died", continued(cluster) - before)
    cluster.machine("b").plug()
    cluster.start_node("b", core=1)
    back_s = until(cluster.is_whole, "another engine and router on the node that came back", STARTS_S)
    record_property("a node is back and serves, s", round(back_s))


def test_without_its_head_the_fleet_serves_and_control_comes_back_by_itself(
    cluster: Cluster, record_property: Callable[[str, object], None]
) -> None:
    load = Load(streams=2, quick=4)

    async def used() -> None:
        async with under(load, cluster.url("a"), stream_tokens=ANSWER_TOKENS):
            cluster.machine("head").kill()
            await asyncio.sleep(HEAD_GONE_S)
            cluster.machine("head").plug()
            await asyncio.to_thread(cluster.start_head)

    asyncio.run(used())
    record_property("requests while the head was gone for 60 s and came back", dict(load.outcomes))
    assert load.outcomes.keys() == {"whole"}

    def controlled() -> bool:
        try:
            return cluster.rest.applications()["headrace"]["status"] == "RUNNING"
        except (httpx.HTTPError, KeyError, ValueError):
            return False

    record_property("control is back, s after the head", round(until(controlled, "Serve's word", STARTS_S), 1))
    assert cluster.is_whole()
    file = cluster.folder / "fleet.yaml"
    file.write_text(file.read_text().replace("max_num_seqs: 128", "max_num_seqs: 96"))
    done = cluster.deploy("--timeout", f"{STARTS_S:g}")
    assert done.returncode == 0, done.stdout + done.stderr
