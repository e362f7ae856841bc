"""A process with a router's HTTP server over an engine without a model.

`python -m tests.deployments.fake_server FOLDER STORE_FOLDER`: it prints its port, then its state for each line on
standard input, and ends with that.
"""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import IO, Any

import psutil
import uvloop

from deployments.fleet import sqlite_url
from tests.deployments.fake_engine import FakeEngine
from tests.deployments.http_served import Kept, Served, serve


class Errors(logging.Handler):
    """What the HTTP server and the event loop log as errors."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


async def main(folder: str, place: str) -> None:
    errors = Errors()
    logging.getLogger().addHandler(errors)
    kept = Kept(url=sqlite_url(Path(place) / "store.sqlite"), files=f"{place}/files")
    async with serve(Path(folder), FakeEngine(slots=64, step_s=[0.0]), kept=kept) as served:
        print(served.port, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(state(served, errors)), flush=True)


def state(served: Served, errors: Errors) -> dict[str, Any]:
    served.engine.forget()  # What it was told would else count as the router's memory.
    own = psutil.Process()
    return {
        "open": served.lane.open_requests() + served.engine.unfinished,
        "queued_tokens": served.lane.queued_tokens,
        "tasks": len(asyncio.all_tasks()),
        "sockets": len(own.net_connections("inet")),
        "unique_bytes": own.memory_full_info().uss,
        "errors": errors.said[-3:],
    }


@dataclass
class FakeServer:
    """That process, seen from a test."""

    port: int
    _process: subprocess.Popen[str]

    def state(self) -> dict[str, Any]:
        asked, told = _pipes(self._process)
        asked.write("\n")
        asked.flush()
        return json.loads(told.readline())

    def settle(self, idle: dict[str, Any], within_s: float = 5.0) -> dict[str, Any]:
        """The state once nothing is open and no more tasks and sockets are there than when it was idle, or the last."""
        end_s = monotonic() + within_s
        while True:
            now = self.state()
            at_rest = all(now[name] <= idle[name] for name in ("open", "queued_tokens", "tasks", "sockets"))
            if at_rest or monotonic() > end_s:
                return now


@contextmanager
def fake_server(folder: Path, place: Path) -> Iterator[FakeServer]:
    """`place`: an empty folder for its store."""
    command = [sys.executable, "-m", "tests.deployments.fake_server", str(folder), str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        _, told = _pipes(process)
        try:
            yield FakeServer(int(told.readline()), process)
        finally:
            process.kill()


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
