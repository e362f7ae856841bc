"""A router's HTTP server in a process of its own, without Ray: `python -m tests.deployments.real_router FOLDER PORT`.

Standard input tells it in one line of JSON where the engine is. SIGTERM ends it, and so does the end of that input: an
engine that died can't tell it anything else. `GET /cut/N` has it lose its link to the engine after each N tokens.
"""

import asyncio
import json
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import uvicorn
import uvloop

from autoscaling import Targets
from deployments.desks import Desk
from deployments.fleet import RouterSettings
from deployments.frames import EngineFrame
from deployments.http_api import HttpApi
from deployments.http_connection import Connection
from deployments.key_ring import KeyRing
from deployments.lane import Lane
from deployments.link import RouterEnd
from deployments.receiving import Receive
from deployments.render import Renderer
from deployments.replica import Replica
from deployments.reply import Send, respond
from deployments.router_metrics import RouterMetrics

NAME = "tiny"
LINKS = 8
"""To the engine while links are cut: a new one is not heard on at once."""
FOR_EVER = 10**9
MOST_SAID = 1 << 12
"""Ids that are remembered: more than an answer has, and no more, as this process is looked at for leaks too."""


class Links:
    """Links to one engine, which the lane takes for that of as many replicas."""

    def __init__(self, lane: Lane, told: dict[str, Any]) -> None:
        self._lane, self._told = lane, told
        self._keys = told["keys"][0].encode(), told["keys"][1].encode()
        self._every_tokens = FOR_EVER
        self._since_cut = self._joined = 0
        self._said: deque[int] = deque(maxlen=MOST_SAID)
        self._join()

    async def answer(self, path: str, send: Send) -> None:
        """Cuts after so many tokens from now on, 0: never; tells the ids that came since the last time."""
        self._every_tokens = int(path.removeprefix("/cut/")) or FOR_EVER
        body = json.dumps({"ids": list(self._said), "continuations": self._lane.continuations}).encode()
        self._said.clear()
        self._since_cut = 0
        while len(self._lane.replicas) < LINKS:
            self._join()
        while not all(replica.heard for replica in self._lane.replicas.values()):
            await asyncio.sleep(0.01)
        await respond(send, 200, body)

    def _join(self) -> None:
        self._joined += 1
        self._lane.join(Replica(f"link {self._joined}", self._told["facts"]), self._connect)

    def _connect(self, *, on_frame: Callable[[EngineFrame], None], on_lost: Callable[[str], None]) -> RouterEnd:
        def hear(frame: EngineFrame) -> None:
            on_frame(frame)
            ids = [token_id for delta in frame.deltas for token_id in delta.token_ids]
            self._said.extend(ids)
            self._since_cut += len(ids)
            if self._since_cut >= self._every_tokens:
                self._since_cut = 0
                end.close()
                on_lost("was cut")
                self._join()

        address, key = self._told["address"], self._told["engine_key"].encode()
        end = RouterEnd(address=address, engine_key=key, keys=self._keys, on_frame=hear, on_lost=on_lost)
        return end


async def main(folder: str, port: int) -> None:
    with ThreadPoolExecutor(max_workers=2) as threads:
        renderer = Renderer(folder, threads)
        told = json.loads(await asyncio.to_thread(sys.stdin.readline))
        threading.Thread(target=_end_with_the_engine, daemon=True).start()
        lane = Lane(NAME, max_queued_requests=100, log=lambda _: None, continuations=FOR_EVER)
        links = Links(lane, told)
        settings = RouterSettings()
        api = HttpApi(
            {NAME: Desk(lane, renderer, created=1, wakes=False, reasons=told["reasons"])},
            RouterMetrics(Targets()),
            settings,
            KeyRing(()),
        )

        async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            cuts = scope["type"] == "http" and scope["path"].startswith("/cut/")
            await (links.answer(scope["path"], send) if cuts else api(scope, receive, send))

        connection: Any = partial(Connection, limits=settings.limits)
        config = uvicorn.Config(app, port=port, http=connection, log_config=None, lifespan="off", access_log=False)
        # uvicorn sends the signal that ended it once more, to whoever handled it before.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
        await uvicorn.Server(config).serve()
        lane.close()


def _end_with_the_engine() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
