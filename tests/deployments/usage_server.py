"""A process with a router's HTTP server that keeps usage, over an engine without a model.

`python -m tests.deployments.usage_server FOLDER STORE_URL`: it prints its port, and goes on until it is killed.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import uvloop

from deployments.fleet import Tenant
from deployments.late_store import LateStore
from deployments.usage_keeper import UsageKeeper, usage_folder
from tests.deployments.fake_engine import FakeEngine
from tests.deployments.http_served import serve

KEYS = {"alpha": "sk-alpha", "beta": "sk-beta"}
TENANTS = [Tenant(name=name, key_hashes=[sha256(key.encode()).hexdigest()]) for name, key in KEYS.items()]


async def main(folder: str, url: str) -> None:
    keeper = UsageKeeper(LateStore(url), usage_folder(url), lambda line: print(line, file=sys.stderr, flush=True))
    going_on = asyncio.ensure_future(keeper.go_on())
    async with serve(Path(folder), FakeEngine(slots=64, step_s=[0.001]), tenants=TENANTS, journal=keeper) as served:
        print(served.port, flush=True)
        await going_on


@dataclass(frozen=True)
class UsageServer:
    """That process."""

    port: int
    process: subprocess.Popen[str]

    def kill(self) -> None:
        """With what it has open: SIGKILL."""
        self.process.kill()
        self.process.wait()


@contextmanager
def usage_server(folder: Path, url: str) -> Iterator[UsageServer]:
    command = [sys.executable, "-m", "tests.deployments.usage_server", str(folder), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield UsageServer(int(process.stdout.readline()), process)
        finally:
            process.kill()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
