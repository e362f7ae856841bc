"""A process that runs a checkpoint with a real engine, and starts a router for it, without Ray.

`python -m tests.deployments.real_engine FOLDER PORT ENGINE_ARGUMENTS`; SIGTERM ends both.
"""

import asyncio
import json
import os
import signal
import sys
from typing import Any

import uvloop
import zmq

from deployments.engine import Engine
from deployments.fleet import Model
from tests.deployments.real_router import NAME


async def main(folder: str, port: str, arguments: dict[str, Any]) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    command = [sys.executable, "-m", "tests.deployments.real_router", folder, port]
    # Both start at the same time.
    router = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
    engine = object.__new__(Engine.func_or_class)
    await engine.__init__(Model(name=NAME, source=folder, engine=arguments), 1)
    assert router.stdin is not None
    router.stdin.write(json.dumps(await _let_in(engine)).encode() + b"\n")
    await router.stdin.drain()
    ending = asyncio.ensure_future(ended.wait())
    await asyncio.wait([ending, asyncio.ensure_future(router.wait())], return_when=asyncio.FIRST_COMPLETED)
    if router.returncode is None:
        router.terminate()
        await router.wait()
    await engine.__del__()
    # The destructor is a coroutine, which nobody but Serve awaits.
    os._exit(0)


async def _let_in(engine: Any) -> dict[str, Any]:
    """Keys for a router, and what it must know."""
    public, secret = zmq.curve_keypair()
    engine._link.allow(public)
    verified = engine._verdict.reference_distance is not None
    pooling = await engine._engine.pooling_task() if engine._engine.pools else None
    return {
        "address": engine._link.address,
        "engine_key": engine._link.public_key.decode(),
        "keys": [public.decode(), secret.decode()],
        "reasons": engine._model.reasons,
        "facts": {"max_model_len": engine._engine.max_model_len, "pooling": pooling, "verified": verified},
    }


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
