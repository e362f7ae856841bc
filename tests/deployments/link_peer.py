"""A peer in a process of its own, so that a test can stop it as a machine would: `engine`, or `router ADDRESS
KEY`.

Keys go over standard input and output, one line each.
"""

import asyncio
import sys

import zmq

from deployments.frames import Cancel, Load
from deployments.link import EngineEnd, RouterEnd


async def be_engine() -> None:
    engine = EngineEnd(host="127.0.0.1", on_message=lambda *_: None, on_lost=lambda _: None, load=lambda: Load(slots=1))
    engine.allow(sys.stdin.readline().strip().encode())
    print(engine.address, engine.public_key.decode(), flush=True)
    await asyncio.Event().wait()


async def be_router(address: str, engine_key: str) -> None:
    keys = zmq.curve_keypair()
    print(keys[0].decode(), flush=True)
    sys.stdin.readline()
    link = RouterEnd(
        address=address,
        engine_key=engine_key.encode(),
        keys=keys,
        on_frame=lambda _: None,
        on_lost=lambda _: None,
    )
    link.say(Cancel(0))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(be_engine() if sys.argv[1] == "engine" else be_router(*sys.argv[2:]))
