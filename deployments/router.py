"""What does one router replica do: listen, find the engines, and end without losing anybody?"""

import asyncio
import hashlib
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import zmq
from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus

from deployments import tenants
from deployments.ask_all import ask_all
from deployments.books import Books
from deployments.declare import engine_name
from deployments.desks import Desk
from deployments.engine import MARK
from deployments.fleet import Fleet, Model, RouterSettings
from deployments.http_api import HttpApi
from deployments.http_server import HttpServer
from deployments.lane import Lane
from deployments.link import RouterEnd
from deployments.listener import Listener, listen
from deployments.quick_imports import torch_unseen
from deployments.render import Renderer
from deployments.replica import Replica
from deployments.router_metrics import RouterMetrics
from deployments.variants import Served, Variants

if TYPE_CHECKING:
    from deployments.batches.running import Batches
    from deployments.stored_routes import StoredRoutes

LOOK_S = 1.0
"""Seconds between two looks for new engine replicas."""
CALM_S = 3.0
"""While those that are known serve."""

log = logging.getLogger("ray.serve")


@serve.deployment
class Router:
    """The front door: an HTTP server on its own port, and a lane for each model and variant."""

    async def __init__(self, fleet: Fleet, engines: dict[str, DeploymentHandle]) -> None:
        self._keys = zmq.curve_keypair()
        self._engines = engines
        threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="tokenize")
        self._desks = {model.name: _desk(model, fleet, threads) for model in fleet.models}
        self._lanes = {lane.model: lane for desk in self._desks.values() for lane in desk.lanes}
        self._metrics = RouterMetrics(fleet.scaling.targets())
        self._books = _books(fleet)
        await self._books.begin()
        routes, self._batches = self._work(fleet.router)
        ring, journal, tolls = self._books.ring, self._books.journal, self._books.tolls
        self._api = HttpApi(self._desks, self._metrics, fleet.router, ring, journal, tolls, routes)
        self._settle_s = fleet.router.settle_s
        self._http = HttpServer(self._api, _listen(fleet.router.host, fleet.router.port), fleet.router.limits)
        await self._http.start()
        self._looking = [asyncio.ensure_future(self._look(name)) for name in engines]
        self._looking += self._books.go_on(self._metrics.scaling.decided)
        if self._batches is not None:
            self._batches.begin()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Read by `autoscaling:ServePolicy`: what waits and what came here, by engine deployment."""
        return {
            f"{number}.{name}": value
            for name, lane in self._lanes.items()
            for number, value in (
                ("queued_requests", float(lane.queued_requests)),
                ("queued_tokens", float(lane.queued_tokens)),
                *self._metrics.traffic(name).to_metrics().items(),
            )
        }

    async def check_health(self) -> None:
        """Serve replaces this replica when this raises."""
        if self._http.ended:
            raise RuntimeError("the HTTP server has stopped")

    async def __del__(self) -> None:
        """Fails /ready, leaves the socket to other routers, answers everything that came here; Serve awaits this."""
        if not hasattr(self, "_looking"):
            return
        self._api.draining = True
        if self._batches is not None:
            self._batches.drain()
        ending = asyncio.ensure_future(self._http.drain(self._settle_s))
        while not ending.done():
            await self._give_up_lost_causes()
            await asyncio.wait([ending], timeout=LOOK_S)
        for task in self._looking:
            task.cancel()
        if self._batches is not None:
            await self._batches.close()
        for lane in self._lanes.values():
            lane.close()
        await self._books.close()
        ending.result()

    def _work(self, settings: RouterSettings) -> "tuple[StoredRoutes, Batches] | tuple[None, None]":
        try:
            return self._books.work(self._desks, self._metrics, settings) or (None, None)
        except Exception as error:
            raise RuntimeError(f"{MARK}router: store.files can't be used: {error}") from None

    async def _give_up_lost_causes(self) -> None:
        """Fails what waits for engines that Serve ends too; an update's next engine takes what waits for it."""
        stuck = {name for name, lane in self._lanes.items() if lane.queued_requests and not lane.ready()}
        if stuck:
            for name in stuck - await asyncio.to_thread(_kept, stuck):
                self._lanes[name].give_up("This server is shutting down.")

    async def _look(self, name: str) -> None:
        """Finds replicas that this router has no link to yet, for as long as it lives."""
        lane, handle = self._lanes[name], self._engines[name]
        while True:
            await ask_all(handle, "describe", self._keys[0], tell=partial(self._join, lane), log=log.debug)
            await asyncio.sleep(CALM_S if lane.settled() else LOOK_S)

    def _join(self, lane: Lane, facts: dict[str, Any]) -> None:
        if facts["replica"] in lane.replicas:
            return
        log.info("%s: replica %s at %s", lane.model, facts["replica"], facts["address"])
        connect = partial(RouterEnd, address=facts["address"], engine_key=facts["key"], keys=self._keys)
        lane.join(Replica(facts["replica"], facts), connect)


def _books(fleet: Fleet) -> Books:
    try:
        return Books(fleet, log.warning)
    except OSError as error:
        raise RuntimeError(f"{MARK}router: usage, or what is spent of budgets, can't be kept: {error}") from None


def _desk(model: Model, fleet: Fleet, threads: ThreadPoolExecutor) -> Desk:
    lanes = [_lane(engine.name, fleet) for engine in model.engines]
    created = int(os.path.getmtime(model.source)) if os.path.exists(model.source) else int(time.time())
    return Desk(
        lanes[0],
        _renderer(model.source, threads),
        created,
        wakes=all(engine.replicas.min == 0 for engine in model.engines),
        reasons=model.reasons,
        variants=_variants(model, lanes, fleet.scaling.ttft_s) if model.variants else None,
    )


def _renderer(source: str, threads: ThreadPoolExecutor) -> Renderer:
    with torch_unseen():
        return Renderer(source, threads)


def _variants(model: Model, lanes: list[Lane], ttft_s: float) -> Variants:
    """The model itself and its variants. Raises RuntimeError for one of unknown quality."""
    served = [Served(model.name, 1.0, lanes[0])]
    for variant, lane in zip(model.variants, lanes[1:], strict=True):
        if variant.quality is None:
            raise RuntimeError(f"{MARK}{lane.model}: quality: nobody has read its report: write a number")
        served.append(Served(variant.name, variant.quality, lane))
    return Variants(model.name, served, ttft_s=ttft_s)


def _lane(name: str, fleet: Fleet) -> Lane:
    return Lane(
        name,
        max_queued_requests=fleet.router.max_queued_requests,
        log=log.warning,
        continuations=fleet.router.continuations,
        ttft_s=fleet.scaling.ttft_s,
        weights=tenants.weights(fleet.tenants),
        limits=tenants.limits(fleet.tenants),
    )


def _kept(models: set[str]) -> set[str]:
    """Those whose engines Serve goes on to run; all of them while it doesn't say."""
    try:
        application = serve.status().applications.get(serve.get_replica_context().app_name)
    except Exception as error:
        log.debug("Serve does not tell its state: %s", error)
        return models
    if application is None or application.status == ApplicationStatus.DELETING:
        return set()
    declared = application.deployments  # none while an update is being built
    return {model for model in models if not declared or engine_name(model) in declared}


def _listen(host: str, port: int) -> Listener:
    """The socket of this fleet's routers on this machine. Raises RuntimeError when another program has the port."""
    where = f"{ray.get_runtime_context().gcs_address} {serve.get_replica_context().app_name} {host} {port}"
    fleet = hashlib.sha256(where.encode()).hexdigest()[:12]
    try:
        # Not in TMPDIR: the paths of Unix sockets hold 107 bytes.
        return listen(host, port, folder=Path("/tmp") / f"headrace-{os.getuid()}" / "listeners", fleet=fleet)
    except OSError as error:
        raise RuntimeError(f"{MARK}router: can't listen on {host}:{port}: {error.strerror or error}") from None
