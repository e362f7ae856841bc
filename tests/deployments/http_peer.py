"""A router's HTTP server in a process of its own, without engines: `FOLDER FLEET PORT`.

It says `up` on standard output, drains when it is told to on standard input, and ends.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from deployments.fleet import Limits
from deployments.http_server import HttpServer, Receive, Send
from deployments.listener import listen

EVENT_S = 0.01


async def answer(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """`/N` is answered with N pieces, EVENT_S apart, each of which is this process's id."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(int(scope["path"][1:])):
        await send({"type": "http.response.body", "body": b"%d " % os.getpid(), "more_body": True})
        await asyncio.sleep(EVENT_S)
    await send({"type": "http.response.body", "body": b"."})


async def main(folder: str, fleet: str, port: str) -> None:
    server = HttpServer(answer, listen("127.0.0.1", int(port), folder=Path(folder), fleet=fleet), Limits())
    await server.start()
    print("up", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await server.drain(settle_s=0.1)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
