"""How much CPU time has each part of a server used, and which processes are that part?"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

import psutil

from cluster.processes import marked


class Part(StrEnum):
    """What a process does for a server."""

    API_SERVER = "API server"
    PROXY = "proxy"
    """Serve's own, or HAProxy."""
    ROUTER = "router"
    """Headrace's, or the replicas of Ray's that choose and forward."""
    ENGINE = "engine replica"
    CORE = "engine core"
    """The engine core and its workers: what computes."""
    RAY = "Ray"
    """Everything else that Ray starts; it takes no part in a request."""


PATH = frozenset({Part.API_SERVER, Part.PROXY, Part.ROUTER, Part.ENGINE})
"""Everything between the client and the engine core."""

Titles = tuple[tuple[str, Part], ...]
"""What a process's command line holds, and which part that makes it; the first that fits."""
FLEET_TITLES: Titles = (
    ("ray::ServeReplica:headrace:engine-", Part.ENGINE),
    ("ray::ServeReplica:headrace:router", Part.ROUTER),
)
RAY_LLM_TITLES: Titles = (
    ("ray::ServeReplica:llm:LLMServer", Part.ENGINE),
    ("ray::ServeReplica:llm:", Part.ROUTER),
    ("ray::ProxyActor", Part.PROXY),
    ("bin/haproxy ", Part.PROXY),
)

Parts = Callable[[], Iterator[tuple[psutil.Process, Part]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """CPU seconds used up to now, user and system, by process (pid, creation time); all its threads."""

    used_s: dict[tuple[int, float], tuple[Part, float]]

    def since(self, earlier: "Reading") -> dict[Part, float]:
        """CPU seconds by part between two readings. A process that has ended in between is left out."""
        spent: dict[Part, float] = {}
        for process, (part, used_s) in self.used_s.items():
            before_s = earlier.used_s[process][1] if process in earlier.used_s else 0.0
            spent[part] = spent.get(part, 0.0) + used_s - before_s
        return spent


def read(parts: Parts) -> Reading:
    """Reads /proc/<pid>/stat of every process of a server; resolution 10 ms for each process."""
    used_s = {}
    for process, part in parts():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        used_s[process.pid, process.create_time()] = (part, times.user + times.system)
    return Reading(used_s=used_s)


def parts_of_vllm(pid: int) -> Iterator[tuple[psutil.Process, Part]]:
    """vLLM's own server: the process itself is the path, its descendants are the engine core."""
    server = psutil.Process(pid)
    yield server, Part.API_SERVER
    for child in server.children(recursive=True):
        yield child, Part.CORE


def parts_of_fleet(run_id: str) -> Iterator[tuple[psutil.Process, Part]]:
    """A fleet of Headrace's."""
    return _parts_under_ray(run_id, FLEET_TITLES)


def parts_of_ray_llm(run_id: str) -> Iterator[tuple[psutil.Process, Part]]:
    """An application of `ray.serve.llm`."""
    return _parts_under_ray(run_id, RAY_LLM_TITLES)


def _parts_under_ray(run_id: str, titles: Titles) -> Iterator[tuple[psutil.Process, Part]]:
    """Replicas and proxies by the titles that they carry, the engine core by parentage, the rest is Ray."""
    processes = {process.pid: process for process in _processes(run_id)}
    parts = {pid: _part(_title(process), titles) for pid, process in processes.items()}
    engines = [processes[pid] for pid, part in parts.items() if part is Part.ENGINE]
    cores = {child.pid for engine in engines for child in engine.children(recursive=True)}
    for pid, process in processes.items():
        yield process, Part.CORE if pid in cores else parts[pid]


def _processes(run_id: str) -> Iterator[psutil.Process]:
    for process in marked(run_id):
        with suppress(psutil.NoSuchProcess):
            yield psutil.Process(process.pid)


def _part(title: str, titles: Titles) -> Part:
    return next((part for held, part in titles if held in title), Part.RAY)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
