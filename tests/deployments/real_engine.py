"""A process that serves a checkpoint with a real engine behind a real link and HTTP server, and without Ray.

`python -m tests.deployments.real_engine FOLDER PORT ENGINE_ARGUMENTS`; SIGTERM ends it.
"""

import asyncio
import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvicorn
import uvloop
import zmq

from deployments.engine import Engine
from deployments.fleet import Model
from deployments.forward import Allowed
from deployments.http_api import Desk, HttpApi
from deployments.lane import Lane, Replica
from deployments.link import RouterEnd
from deployments.render import Renderer
from deployments.router_metrics import RouterMetrics

NAME = "tiny"


async def main(folder: str, port: int, arguments: dict[str, Any]) -> None:
    model = Model(name=NAME, source=folder, engine=arguments)
    engine = object.__new__(Engine.func_or_class)
    await engine.__init__(model, 1)
    with ThreadPoolExecutor(max_workers=2) as threads:
        lane = Lane(NAME, max_queued_requests=100, log=print)
        desk = Desk(lane, Renderer(folder, threads), created=1, wakes=False)
        _join(lane, engine)
        config = uvicorn.Config(
            HttpApi({NAME: desk}, RouterMetrics(), Allowed()), port=port, log_config=None, lifespan="off"
        )
        server = uvicorn.Server(config)
        # uvicorn sends the signal that ended it once more, to whoever handled it before.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
        await server.serve()
        lane.close()
    await engine.__del__()
    # The destructor is a coroutine, which nobody but Serve awaits.
    os._exit(0)


def _join(lane: Lane, engine: Any) -> None:
    keys = zmq.curve_keypair()
    engine._link.allow(keys[0])
    verified = engine._verdict.reference_distance is not None
    facts = {"max_model_len": engine._engine.max_model_len, "verified": verified}
    lane.join(
        Replica("only", facts),
        lambda **hears: RouterEnd(address=engine._link.address, engine_key=engine._link.public_key, keys=keys, **hears),
    )


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])))
