"""How much CPU time has each part of a server used, and which processes are that part?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import psutil

from cluster.processes import marked


class Part(StrEnum):
    """What a process does for a server."""

    API_SERVER = "API server"
    ROUTER = "router"
    ENGINE = "engine replica"
    CORE = "engine core"
    """The engine core and its workers: what computes."""
    RAY = "Ray"
    """Everything else that Ray starts for the fleet; it takes no part in a request."""


PATH = frozenset({Part.API_SERVER, Part.ROUTER, Part.ENGINE})
"""Everything between the client and the engine core."""

ROUTER_TITLE = "ray::ServeReplica:headrace:router"
ENGINE_TITLE = "ray::ServeReplica:headrace:engine-"

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
    """A fleet: replicas by the title that Ray gives them, the engine core by parentage, the rest is Ray."""
    processes = {process.pid: psutil.Process(process.pid) for process in marked(run_id)}
    titles = {pid: _title(process) for pid, process in processes.items()}
    engines = [pid for pid, title in titles.items() if title.startswith(ENGINE_TITLE)]
    cores = {child.pid for pid in engines for child in processes[pid].children(recursive=True)}
    for pid, process in processes.items():
        if pid in cores:
            yield process, Part.CORE
        elif pid in engines:
            yield process, Part.ENGINE
        else:
            yield process, Part.ROUTER if titles[pid].startswith(ROUTER_TITLE) else Part.RAY


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
