"""A router's HTTP server in a process of its own, without Ray: `python -m tests.deployments.real_router FOLDER PORT`.

Standard input tells it in one line of JSON where the engine is. SIGTERM ends it, and so does the end of that input: an
engine that died can't tell it anything else.
"""

import asyncio
import json
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvicorn
import uvloop

from autoscaling import Targets
from deployments.forward import Allowed
from deployments.http_api import Desk, HttpApi
from deployments.http_connection import Connection
from deployments.lane import Lane, Replica
from deployments.link import RouterEnd
from deployments.render import Renderer
from deployments.router_metrics import RouterMetrics

NAME = "tiny"


async def main(folder: str, port: int) -> None:
    with ThreadPoolExecutor(max_workers=2) as threads:
        renderer = Renderer(folder, threads)
        told = json.loads(await asyncio.to_thread(sys.stdin.readline))
        threading.Thread(target=_end_with_the_engine, daemon=True).start()
        lane = Lane(NAME, max_queued_requests=100, log=print)
        _join(lane, told)
        api = HttpApi({NAME: Desk(lane, renderer, created=1, wakes=False)}, RouterMetrics(Targets()), Allowed())
        config = uvicorn.Config(api, port=port, http=Connection, log_config=None, lifespan="off", access_log=False)
        # uvicorn sends the signal that ended it once more, to whoever handled it before.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
        await uvicorn.Server(config).serve()
        lane.close()


def _end_with_the_engine() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def _join(lane: Lane, told: dict[str, Any]) -> None:
    keys = told["keys"][0].encode(), told["keys"][1].encode()
    lane.join(
        Replica("only", told["facts"]),
        lambda **hears: RouterEnd(address=told["address"], engine_key=told["engine_key"].encode(), keys=keys, **hears),
    )


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
