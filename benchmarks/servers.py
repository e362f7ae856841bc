"""How are the two servers of a comparison started alike, and ended?"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from benchmarks.cpu_time import Part, Parts, parts_of_fleet, parts_of_vllm
from cluster import cores, runs
from headrace.folders import runs_folder

HOST = "127.0.0.1"
MODEL = "bench"
"""What both call the model; the name of Headrace's run too."""
ENGINE: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "kv_cache_memory_bytes": 1 << 30,
    "max_num_seqs": 64,
}
"""Engine arguments of both."""
START_S = 600.0
"""Patience with a server that starts."""


class BenchmarkFailed(RuntimeError):
    """There is nothing to compare; the text says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A server that answers."""

    name: str
    port: int
    parts: Parts

    def binding(self) -> str:
        """Cores that its engine core was bound to, from that process's own environment."""
        core = next(process for process, part in self.parts() if part is Part.CORE)
        return core.environ().get("VLLM_CPU_OMP_THREADS_BIND", "not set")


@contextmanager
def vllm_server(folder: Path, logs: Path) -> Iterator[Server]:
    """vLLM's own OpenAI server with statistics and without access or request logs. Raises BenchmarkFailed.

    Its OpenMP threads are bound as Headrace binds those of an engine that has the machine for itself.
    """
    port, log = _free_port(), logs / "vllm.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            _vllm_command(folder, port),
            env=os.environ
            | {
                "VLLM_CPU_OMP_THREADS_BIND": cores.binding(sorted(os.sched_getaffinity(0)), 1),
                "VLLM_NO_USAGE_STATS": "1",
            },
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _await_health(process, port, log)
        yield Server(name="vllm", port=port, parts=partial(parts_of_vllm, process.pid))
    finally:
        _end(process)


@contextmanager
def headrace_fleet(folder: Path, logs: Path) -> Iterator[Server]:
    """A fleet of one replica, started and ended by the command line. Raises BenchmarkFailed."""
    port, fleet = _free_port(), logs / "fleet.yaml"
    model = {"name": MODEL, "source": str(folder), "engine": ENGINE}
    fleet.write_text(yaml.safe_dump({"models": [model], "router": {"host": HOST, "port": port}}))
    headrace = [sys.executable, "-m", "headrace"]
    if subprocess.run([*headrace, "serve", str(fleet), "--detach", "--name", MODEL]).returncode:
        raise BenchmarkFailed("the fleet did not start: see above")
    try:
        run = runs.read(runs_folder(), MODEL)
        if run is None:
            raise BenchmarkFailed(f"the run {MODEL!r} left no record")
        yield Server(name="headrace", port=port, parts=partial(parts_of_fleet, run.id))
    finally:
        subprocess.run([*headrace, "stop", "--name", MODEL])


def _vllm_command(folder: Path, port: int) -> list[str]:
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--disable-uvicorn-access-log"]
    command += ["--model", str(folder), "--served-model-name", MODEL, "--host", HOST, "--port", str(port)]
    command += ["--distributed-executor-backend", "mp"]
    for name, value in ENGINE.items():
        command += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return command


def _await_health(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline_s = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline_s:
        try:
            if httpx.get(f"http://{HOST}:{port}/health", timeout=5.0, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise BenchmarkFailed(f"vLLM's server did not start; its last words: {log.read_text(errors='replace')[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        tree = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        tree = []
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for left in psutil.wait_procs(tree, timeout=5)[1]:
        left.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
