"""How is a fleet served by several machines (nodes.py), used there, and looked at from outside?"""

import asyncio
import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from headrace.fetching import resolve
from headrace.serve_rest import ServeRest
from tests.e2e.balancer import balancer
from tests.e2e.nodes import DASHBOARD_PORT, HUB, Machine, Machines, drain, machines, ray_head, ray_node, until, why_not
from tests.e2e.typed import headrace, title

TOKEN = "6e6f6465" * 8
STREAMS = 100
ANSWER_TOKENS = 400
PORT = 8000
ENGINES, ROUTERS = "engine-tiny", "router"
FLEET = """
models:
  - name: tiny
    source: {source}
    engine: {{dtype: float32, max_model_len: 1024, max_num_seqs: 128, kv_cache_memory_bytes: 268435456}}
    tensor_parallel: {ranks}
    replicas: {{min: 2, max: 2}}
router: {{host: 0.0.0.0, open: true, port: {port}, replicas: 2, settle_s: 3}}
"""
STARTS_S = 600.0


@dataclass
class Cluster:
    """A head and machines of a few CPUs: each has room for one engine, and for a router or two beside it."""

    made: Machines
    folder: Path
    env: dict[str, str]
    rest: ServeRest
    balanced: str
    """Of a balancer before the routers of all machines."""
    cpus: int
    """Of a machine, as Ray counts them."""

    @property
    def file(self) -> Path:
        return self.folder / "fleet.yaml"

    def machine(self, name: str) -> Machine:
        return self.made.by_name[name]

    def url(self, name: str) -> str:
        return f"http://{self.machine(name).address}:{PORT}"

    def start_head(self) -> None:
        ray_head(self.machine("head"), folder=self.folder / "head", core=0, env=self.env)
        until(self.rest.is_up, "Ray's head")

    def start_node(self, name: str, core: int) -> None:
        folder = self.folder / name
        ray_node(self.machine(name), self.machine("head"), folder=folder, core=core, cpus=self.cpus, env=self.env)

    def joined(self, *names: str) -> bool:
        """Whether Ray has these machines."""
        try:
            found = {node.name.split()[0] for node in self.rest.nodes()}
        except (httpx.HTTPError, KeyError, TypeError, ValueError):
            return False
        return {self.machine(name).address for name in names} <= found

    def drain(self, name: str, notice_s: int) -> None:
        """Ray hears that this machine will be taken away. It carries something."""
        node = next(one["node_id"] for one in self.serving(ENGINES) + self.serving(ROUTERS) if self._is_on(one, name))
        drain(self.machine("head"), node, notice_s=notice_s, env=self.env)

    def deploy(self, file: Path | None = None) -> subprocess.CompletedProcess[str]:
        """The fleet's file, by the command."""
        where = ("--address", self.rest.url, "--token-file", str(self.folder / "token"))
        patience = ("--timeout", f"{STARTS_S:g}")
        return headrace("deploy", str(file or self.file), *where, *patience, env=self.env, timeout_s=2 * STARTS_S)

    def changed(self, before: str, after: str) -> Path:
        """The fleet's file with one change, in another file."""
        file = self.folder / "changed.yaml"
        file.write_text(self.file.read_text().replace(before, after))
        return file

    def replicas(self, deployment: str) -> list[dict[str, Any]]:
        """What Serve knows of them, those that start or end among them; none while it does not answer."""
        try:
            return self.rest.applications()["headrace"]["deployments"][deployment]["replicas"]
        except KeyError:
            return []

    def serving(self, deployment: str) -> list[dict[str, Any]]:
        return [one for one in self.replicas(deployment) if one["state"] == "RUNNING"]

    def places(self, deployment: str) -> set[str]:
        """Names of the machines on which its replicas serve."""
        found = self.serving(deployment)
        return {name for name in self.made.by_name if any(self._is_on(one, name) for one in found)}

    def engines(self, name: str) -> int:
        """That the router on this machine has."""
        text = self._metrics(name)
        return sum(line.startswith("headrace_replica_running_requests{") for line in text.splitlines())

    def continued(self, name: str) -> int:
        """Streams that went on elsewhere, by the router on this machine."""
        lines = [line for line in self._metrics(name).splitlines() if line.startswith("headrace_continuations_total")]
        return int(sum(float(line.split()[-1]) for line in lines))

    def is_whole(self) -> bool:
        """Two engines serve, a machine for each, and two routers, each with both engines."""
        if len(self.replicas(ROUTERS)) != 2 or len(self.replicas(ENGINES)) != 2:
            return False
        routers = self.places(ROUTERS)
        return bool(routers) and len(self.places(ENGINES)) == 2 and all(self.engines(name) == 2 for name in routers)

    def process(self, name: str, words: str) -> psutil.Process:
        """One of a machine's, by words of its title."""
        return next(one for one in map(psutil.Process, self.machine(name).pids()) if words in title(one))

    def _is_on(self, replica: Mapping[str, Any], name: str) -> bool:
        return replica["node_ip"] == self.machine(name).address

    def _metrics(self, name: str) -> str:
        try:
            return httpx.get(f"{self.url(name)}/metrics", trust_env=False, timeout=5.0).text
        except httpx.HTTPError:
            return ""


@contextmanager
def fleet_on_nodes(folder: Path, extra: Mapping[str, str] = {}, *, ranks: int = 1) -> Iterator[Cluster]:
    """It serves. Machine c is there, but has not joined. `extra`: environment of every Ray process; `ranks`: processes
    among which each engine divides its layers.

    Where no machines can be made the test is skipped.
    """
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    (folder / "fleet.yaml").write_text(FLEET.format(source=resolve("tiny"), port=PORT, ranks=ranks))
    chosen = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token"), "RAY_worker_niceness": "0"}
    ours |= {"PYTHONPATH": str(Path(__file__).parents[2]), "HEADRACE_STATE": str(folder / "state")}
    ours |= {"HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0", "VLLM_LOGGING_LEVEL": "WARNING"}
    with machines(folder) as made:
        for name in ("head", "a", "b", "c"):
            made.add(name)
        routers = {name: f"{made.by_name[name].address}:{PORT}" for name in ("a", "b", "c")}
        rest = ServeRest(f"http://{made.by_name['head'].address}:{DASHBOARD_PORT}", TOKEN)
        with closing(rest), balancer(folder, HUB, routers) as balanced:
            cluster = Cluster(made, folder, {**chosen, **ours, **extra}, rest, balanced, cpus=ranks + 1)
            cluster.start_head()
            for core, name in enumerate(("a", "b")):
                cluster.start_node(name, core)
            until(lambda: cluster.joined("a", "b"), "two machines in Ray")
            done = cluster.deploy()
            assert done.returncode == 0, done.stdout + done.stderr
            until(cluster.is_whole, "both engines at both routers")
            yield cluster


@dataclass
class Said:
    """A stream to its end."""

    text: str = ""
    tokens: int = 0
    wrong: str = ""


async def stream(http: httpx.AsyncClient, url: str, number: int, begun: Counter[int]) -> Said:
    """One answer; `begun` counts what came of it."""
    body = {"model": "tiny", "prompt": f"A class is {number}", "max_tokens": ANSWER_TOKENS, "ignore_eos": True}
    body |= {"temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    said = Said()
    try:
        async with http.stream("POST", f"{url}/v1/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    said.wrong = line if answer.status_code != 200 else said.wrong
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


async def streams(urls: Sequence[str], meanwhile: Callable[[], object] | None = None) -> list[Said]:
    """STREAMS at once, by each of the URLs in turn; `meanwhile` happens when all have begun."""
    begun = Counter[int]()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=STARTS_S, trust_env=False, limits=limits) as http:
        asked = [
            asyncio.ensure_future(stream(http, urls[number % len(urls)], number, begun)) for number in range(STREAMS)
        ]
        if meanwhile is not None:
            while len(begun) < STREAMS and not all(one.done() for one in asked):
                await asyncio.sleep(0.02)
            assert not any(one.done() for one in asked), "too short to be disturbed"
            await asyncio.to_thread(meanwhile)
        return list(await asyncio.gather(*asked))


def said(*urls: str) -> list[Said]:
    """All streams, undisturbed."""
    answers = asyncio.run(streams(urls))
    assert not any(one.wrong for one in answers), Counter(one.wrong for one in answers)
    return answers
