"""A process with a router's HTTP server that keeps usage and runs batches, over an engine without a model.

`python -m tests.deployments.router_process FOLDER STORE_URL FILES`: it prints its port, and goes on until it is killed.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import openai
import uvloop

from deployments.fleet import Tenant
from deployments.late_store import LateStore
from deployments.store_paths import store_path
from deployments.usage_keeper import FOLDER, UsageKeeper
from tests.deployments.fake_engine import FakeEngine
from tests.deployments.http_served import Kept, serve

KEYS = {"alpha": "sk-alpha", "beta": "sk-beta"}
TENANTS = [Tenant(name=name, key_hashes=[sha256(key.encode()).hexdigest()]) for name, key in KEYS.items()]
LEASE_S = 1.5
STEP_S = 0.005


async def main(folder: str, url: str, files: str) -> None:
    keeper = UsageKeeper(LateStore(url), store_path(url, FOLDER), lambda line: print(line, file=sys.stderr, flush=True))
    going_on = asyncio.ensure_future(keeper.go_on())
    engine, kept = FakeEngine(slots=8, step_s=[STEP_S]), Kept(url=url, files=files, lease_s=LEASE_S)
    async with serve(Path(folder), engine, tenants=TENANTS, journal=keeper, kept=kept) as served:
        print(served.port, flush=True)
        await going_on


@dataclass(frozen=True)
class RouterProcess:
    """That process."""

    port: int
    process: subprocess.Popen[str]

    @property
    def client(self) -> openai.AsyncOpenAI:
        """Of alpha."""
        url = f"http://127.0.0.1:{self.port}/v1"
        return openai.AsyncOpenAI(base_url=url, api_key=KEYS["alpha"], max_retries=0)

    def kill(self) -> None:
        """In the midst of whatever it does: SIGKILL."""
        self.process.kill()
        self.process.wait()


@contextmanager
def router_process(folder: Path, url: str, files: Path) -> Iterator[RouterProcess]:
    command = [sys.executable, "-m", "tests.deployments.router_process", str(folder), url, str(files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield RouterProcess(int(process.stdout.readline()), process)
        finally:
            process.kill()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
