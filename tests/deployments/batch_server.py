"""A process with a router's HTTP server that runs batches, over an engine without a model.

`python -m tests.deployments.batch_server FOLDER STORE_URL FILES`: it prints its port, and goes on until it is killed.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import openai
import uvloop

from tests.deployments.fake_engine import FakeEngine
from tests.deployments.http_served import Kept, serve

LEASE_S = 1.5
STEP_S = 0.005


async def main(folder: str, url: str, files: str) -> None:
    kept = Kept(url=url, files=files, lease_s=LEASE_S)
    async with serve(Path(folder), FakeEngine(slots=8, step_s=[STEP_S]), kept=kept) as served:
        print(served.port, flush=True)
        await asyncio.Event().wait()


@dataclass(frozen=True)
class BatchServer:
    """That process."""

    port: int
    process: subprocess.Popen[str]

    @property
    def client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", max_retries=0)

    def kill(self) -> None:
        """In the midst of whatever it does: SIGKILL."""
        self.process.kill()
        self.process.wait()


@contextmanager
def batch_server(folder: Path, url: str, files: Path) -> Iterator[BatchServer]:
    command = [sys.executable, "-m", "tests.deployments.batch_server", str(folder), url, str(files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield BatchServer(int(process.stdout.readline()), process)
        finally:
            process.kill()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
