"""How are our serving path and vLLM's own server started side by side on one checkpoint?"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from headrace.observe import samples
from tests.deployments.differential import Answer, Exact, ask, ask_exactly

START_S = 240.0
NAME = "tiny"
"""Under which tests/deployments/real_engine.py serves whatever it is given."""


@dataclass(frozen=True)
class Server:
    """One of the two servers, answering."""

    process: psutil.Process
    client: httpx.Client

    def ask(self, path: str, body: dict[str, Any] | bytes, *, stream: bool = False) -> Answer:
        return ask(self.client, path, body, stream=stream)

    def ask_exactly(self, case: tuple[str, dict[str, Any] | bytes]) -> Exact:
        return ask_exactly(self.client, *case)

    def metric(self, name: str) -> float:
        """A metric of ours."""
        page = self.client.get("/metrics").text
        return next(sample.value for sample in samples(page) if sample.name == f"headrace_{name}")


@dataclass(frozen=True)
class Pair:
    """Our server and vLLM's."""

    ours: Server
    theirs: Server


@contextmanager
def one(folder: Path, engine: dict[str, Any]) -> Iterator[Server]:
    """Ours alone. It leaves no process behind."""
    with _running(_ours(folder, engine)) as (server,):
        yield server


@contextmanager
def pair(folder: Path, engine: dict[str, Any]) -> Iterator[Pair]:
    """Both, with the same engine arguments. They leave no process behind."""
    with _running(_ours(folder, engine), _theirs(folder, engine)) as servers:
        yield Pair(*servers)


@contextmanager
def _running(*commands: list[str]) -> Iterator[list[Server]]:
    with ExitStack() as stack:
        servers = [stack.enter_context(_started(command)) for command in commands]
        for server in servers:
            _wait_until_healthy(server)
        yield servers
    assert not any(server.process.is_running() for server in servers)


def wait_for(happened: Callable[[], bool], within_s: float = 5.0) -> None:
    """Fails when it does not happen in time."""
    end_s = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def _ours(folder: Path, engine: dict[str, Any]) -> list[str]:
    return ["tests.deployments.real_engine", str(folder), "PORT", json.dumps(engine)]


def _theirs(folder: Path, engine: dict[str, Any]) -> list[str]:
    options = [word for name, value in engine.items() for word in _option(name, value)]
    return [
        *["vllm.entrypoints.openai.api_server", "--model", str(folder), "--served-model-name", NAME],
        *["--port", "PORT", "--enforce-eager", "--disable-uvicorn-access-log", *options],
    ]


def _option(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if value is True:
        return [flag]
    return [flag, value if isinstance(value, str) else json.dumps(value)]


@contextmanager
def _started(words: list[str]) -> Iterator[Server]:
    """A server that is starting."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", *(str(port) if word == "PORT" else word for word in words)]
    env = os.environ | {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
    with subprocess.Popen(command, env=env) as process:
        server = psutil.Process(process.pid)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0, trust_env=False) as client:
            try:
                yield Server(server, client)
            finally:
                family = [server, *server.children(recursive=True)]
                process.terminate()
                _, alive = psutil.wait_procs(family, timeout=20)
                for left in alive:
                    left.kill()
    assert not alive


def _wait_until_healthy(server: Server) -> None:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        assert server.process.is_running()
        assert server.process.status() != psutil.STATUS_ZOMBIE, "it ended; its words are above"
        try:
            if server.client.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    pytest.fail(f"not healthy after {START_S} s")
