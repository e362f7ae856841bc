"""How are the systems of a comparison started alike, and ended? Here: vLLM's own server and Headrace."""

import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from benchmarks.cpu_time import Part, Parts, parts_of_fleet, parts_of_vllm
from cluster import launch, runs
from cluster.processes import MARK, end_run
from headrace.folders import made, run_folder, runs_folder

HOST = "127.0.0.1"
MODEL = "bench"
"""What all call the model; the name of Headrace's run too."""
Arguments = dict[str, Any]
"""Of an engine, by vLLM's names."""
ENGINE: Arguments = {
    "enforce_eager": True,
    # 32 streams of 192 tokens of SmolLM2, and little enough for four engines beside each other.
    "kv_cache_memory_bytes": 384 << 20,
    "max_model_len": 1024,
    "max_num_seqs": 64,
    "enable_prefix_caching": True,
}
"""Engine arguments of all, beside their dtype."""
EXECUTOR = {"distributed_executor_backend": "mp"}
"""As Headrace sets it by itself, and allows no other."""
SYSTEM_BYTES = 4 << 30
"""Memory that a system takes at most, with its Ray."""
START_S = 300.0
"""Patience with a system that starts."""
KEEPER_PATIENCE_S = 15.0
NEVER = 1e9
"""Requests at which a second replica would come."""


class BenchmarkFailed(RuntimeError):
    """There is nothing to compare; the text says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A system that answers."""

    name: str
    port: int
    parts: Parts

    def binding(self) -> str:
        """Cores that its engine core was bound to, from that process's own environment."""
        core = next(process for process, part in self.parts() if part is Part.CORE)
        return core.environ().get("VLLM_CPU_OMP_THREADS_BIND", "not set")


@contextmanager
def vllm_server(folder: Path, core: str, engine: Arguments) -> Iterator[Server]:
    """vLLM's own OpenAI server with statistics and without access or request logs. Raises BenchmarkFailed."""
    port = free_port()

    def environment(run_id: str, _: Path) -> dict[str, str]:
        # SPT_NOENV: else the engine core's title takes the place of the environment that /proc shows, mark included.
        switches = {MARK: run_id, "SPT_NOENV": "1", "VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}
        return os.environ | switches | bound(core)

    with kept("vllm", environment, lambda _: _vllm_command(folder, port, engine)) as (place, keeper, _):
        await_answer(port, "/health", keeper, place / "ray.log")
        server = psutil.Process(keeper.pid).children()[0]
        yield Server(name="vllm", port=port, parts=partial(parts_of_vllm, server.pid))


@contextmanager
def headrace_fleet(folder: Path, engine: Arguments) -> Iterator[Server]:
    """A fleet of one replica, started and ended by the command line. Raises BenchmarkFailed.

    It may have as many replicas as the machine has cores, so that an engine is bound to one of them; load brings no
    second one. Bound to several, its threads wait for each other by spinning, which costs what the machine's other load
    makes it cost.
    """
    port, cores = free_port(), len(os.sched_getaffinity(0))
    model = {"name": MODEL, "source": str(folder), "engine": engine, "replicas": {"min": 1, "max": cores}}
    fields = {
        "models": [model],
        "router": {"host": HOST, "port": port},
        "scaling": {"advise": True, "ongoing_requests": NEVER},
    }
    headrace = [sys.executable, "-m", "headrace"]
    try:
        with made(run_folder(f"{MODEL}-{secrets.token_hex(4)}")) as place:
            fleet = place / "fleet.yaml"
            fleet.write_text(yaml.safe_dump(fields))
            started = subprocess.run([*headrace, "serve", str(fleet), "--detach", "--name", MODEL], stdout=sys.stderr)
        run = runs.read(runs_folder(), MODEL)
        if started.returncode or run is None:
            raise BenchmarkFailed("headrace serve did not start: see above")
        yield Server(name="headrace", port=port, parts=partial(parts_of_fleet, run.id))
    finally:
        subprocess.run([*headrace, "stop", "--name", MODEL], stdout=sys.stderr)


Environment = Callable[[str, Path], dict[str, str]]
"""Of a run id and a folder."""


@contextmanager
def kept(
    name: str, environment: Environment, command: Callable[[Path], list[str]]
) -> Iterator[tuple[Path, subprocess.Popen[bytes], str]]:
    """A command in a folder of its own, its processes marked: folder, keeper, run id. All of it is gone afterwards."""
    # Short: HAProxy's sockets lie two folders below one of this name, and may have 97 characters.
    run_id = f"b{secrets.token_hex(3)}"
    with made(run_folder(run_id)) as place:
        chosen = environment(run_id, place)
        keeper = launch.start(command(place), run_id=run_id, folder=place, environment=chosen)
        try:
            yield place, keeper, run_id
        finally:
            keeper.terminate()
            with suppress(subprocess.TimeoutExpired):
                keeper.wait(KEEPER_PATIENCE_S)
            if left := end_run(run_id, grace_s=0):
                print(f"{name}: can't be ended: pids {[process.pid for process in left]}", file=sys.stderr)


def bound(core: str) -> dict[str, str]:
    """Binds an engine to one core."""
    return {"VLLM_CPU_OMP_THREADS_BIND": core}


def await_answer(port: int, path: str, keeper: subprocess.Popen[bytes], log: Path) -> None:
    """Waits for status 200. Raises BenchmarkFailed with the log's last words."""
    await_true(lambda: _answers(f"http://{HOST}:{port}{path}"), keeper, log)


def await_true(done: Callable[[], bool], keeper: subprocess.Popen[bytes], log: Path) -> None:
    """Waits as long as the keeper is there, at most START_S. Raises BenchmarkFailed with the log's last words."""
    deadline_s = time.monotonic() + START_S
    while not done():
        if keeper.poll() is not None or time.monotonic() > deadline_s:
            ended = f"not ready within {START_S:.0f} s" if keeper.poll() is None else "ended while it started"
            raise BenchmarkFailed(f"{ended}; last words: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.5)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def free_port() -> int:
    """A port of this machine's loopback that nobody listens on now."""
    return next(launch.unused(random.Random()))


def _vllm_command(folder: Path, port: int, engine: Arguments) -> list[str]:
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--disable-uvicorn-access-log"]
    command += ["--model", str(folder), "--served-model-name", MODEL, "--host", HOST, "--port", str(port)]
    for name, value in (engine | EXECUTOR).items():
        command += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return command
