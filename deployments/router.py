"""What does one router replica do: listen, find the engines, and end without losing anybody?"""

import asyncio
import logging
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import uvicorn
import zmq
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.engine import MARK
from deployments.fleet import Fleet, Model
from deployments.forward import Allowed
from deployments.http_api import Desk, HttpApi
from deployments.lane import Lane, Replica
from deployments.link import RouterEnd
from deployments.render import Renderer
from deployments.router_metrics import RouterMetrics

LOOK_S = 1.0
"""Seconds between two looks for new engine replicas."""
ANSWER_S = 5.0
"""Patience with replicas that should describe themselves."""

log = logging.getLogger("ray.serve")


@serve.deployment
class Router:
    """The front door: an HTTP server on its own port, and a lane for each model."""

    async def __init__(self, fleet: Fleet, engines: dict[str, DeploymentHandle]) -> None:
        self._keys = zmq.curve_keypair()
        self._engines = engines
        threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="tokenize")
        self._desks = {model.name: _desk(model, fleet, threads) for model in fleet.models}
        allowed = Allowed(media_urls=fleet.router.allow_media_urls, chat_templates=fleet.router.allow_chat_templates)
        self._api = HttpApi(self._desks, RouterMetrics(), allowed)
        listener = _listen(fleet.router.host, fleet.router.port)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._api,
                http="httptools",
                ws="none",
                lifespan="off",
                interface="asgi3",
                access_log=False,
                proxy_headers=False,
                date_header=False,
                log_config=None,
                server_header=False,
                timeout_keep_alive=75,
            )
        )
        self._serving = asyncio.ensure_future(self._server.serve(sockets=[listener]))
        self._looking = [asyncio.ensure_future(self._look(name)) for name in engines]

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Read by `autoscaling:ServePolicy`: what waits here, by model."""
        return {f"queued_requests.{name}": float(desk.lane.queued_requests) for name, desk in self._desks.items()}

    async def check_health(self) -> None:
        """Serve replaces this replica when this raises."""
        if self._serving.done():
            raise RuntimeError("the HTTP server has stopped")

    async def __del__(self) -> None:
        """Stops listening, finishes the open requests, closes; Serve awaits this."""
        if not hasattr(self, "_looking"):
            return
        self._api.draining = True
        self._server.should_exit = True
        while not self._serving.done():
            for desk in self._desks.values():
                desk.lane.give_up("This server is shutting down.")
            await asyncio.wait([self._serving], timeout=0.1)
        for task in self._looking:
            task.cancel()
        for desk in self._desks.values():
            desk.lane.close()

    async def _look(self, name: str) -> None:
        """Finds replicas that this router has no link to yet, for as long as it lives."""
        lane, handle = self._desks[name].lane, self._engines[name]
        while True:
            try:
                found = await asyncio.wait_for(_describe(handle, self._keys[0]), ANSWER_S)
                for facts in found:
                    if facts["replica"] not in lane.replicas:
                        self._join(lane, facts)
            except Exception as error:  # no replica yet, or one died just now: look again
                log.debug("%s: %s", name, error)
            await asyncio.sleep(LOOK_S)

    def _join(self, lane: Lane, facts: dict[str, Any]) -> None:
        log.info("%s: replica %s at %s", lane.model, facts["replica"], facts["address"])
        connect = partial(RouterEnd, address=facts["address"], engine_key=facts["key"], keys=self._keys)
        lane.join(Replica(facts["replica"], facts), connect)


async def _describe(handle: DeploymentHandle, key: bytes) -> list[dict[str, Any]]:
    return await handle.broadcast("describe", key).results_async()


def _desk(model: Model, fleet: Fleet, threads: ThreadPoolExecutor) -> Desk:
    lane = Lane(model.name, max_queued_requests=fleet.router.max_queued_requests, log=log.warning)
    created = int(os.path.getmtime(model.source)) if os.path.exists(model.source) else int(time.time())
    wakes, reasons = model.replicas.min == 0, bool(model.engine.get("reasoning_parser"))
    return Desk(lane, Renderer(model.source, threads), created, wakes, reasons)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket that routers of one machine share. Raises RuntimeError when another program has the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        raise RuntimeError(f"{MARK}router: can't listen on {host}:{port}: {error.strerror}") from None
    listener.setblocking(False)
    return listener
