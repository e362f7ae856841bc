"""Which routes does the router offer over HTTP, to whom, and what do its own say?"""

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from deployments import anthropic_errors, forward
from deployments.answering import answering
from deployments.bill import Journal
from deployments.desks import Desk, by_name, card, opened
from deployments.fleet import RouterSettings
from deployments.in_process import Route
from deployments.key_ring import KeyRing
from deployments.open_requests import OpenRequests
from deployments.openai_wire import ApiError
from deployments.receiving import Receive, Scope
from deployments.reply import Send, respond
from deployments.router_metrics import RouterMetrics
from deployments.tolls import Tolls

OPEN = frozenset({"/health", "/ready", "/metrics"})
"""Routes that need no key."""


class StoredRoutes(Protocol):
    """What needs a store."""

    def routes(self, path: str) -> dict[str, Route]:
        """By method; none where the path is no such route."""
        ...


class HttpApi:
    """The ASGI application. `desks` by model name, in the fleet's order; `journal`: None where no usage is kept,
    `tolls` where no tenant has limits, `stored` where there is no place for files.
    """

    def __init__(
        self,
        desks: Mapping[str, Desk],
        metrics: RouterMetrics,
        settings: RouterSettings,
        ring: KeyRing,
        journal: Journal | None = None,
        tolls: Tolls | None = None,
        stored: StoredRoutes | None = None,
    ) -> None:
        self._desks, self._metrics, self._ring = desks, metrics, ring
        self._open = OpenRequests(settings.limits.open_requests)
        self.draining = False
        """/ready fails; everything else goes on."""
        self._stored = stored
        self._routes: dict[str, dict[str, Route]] = {
            **{path: {"POST": route} for path, route in answering(desks, metrics, settings, journal, tolls).items()},
            "/v1/models": {"GET": self._models},
            "/health": {"GET": self._health},
            "/ready": {"GET": self._ready},
            "/metrics": {"GET": self._scrape},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            route = self._route(scope)
            if scope["path"] not in OPEN:
                scope["holder"] = self._ring.identify(scope["headers"])
            if scope["method"] == "GET":
                await route(scope, receive, send)
            else:
                with self._open.entered():
                    await route(scope, receive, send)
        except ApiError as error:
            self._metrics.refused(error.status)
            body = anthropic_errors.body(error) if forward.anthropic(scope["path"]) else error.body
            await _refuse(send, error, body)

    def _route(self, scope: Scope) -> Route:
        path, method = scope["path"], scope["method"]
        if path.startswith("/v1/models/") and method == "GET":
            return self._model
        if not (methods := self._routes.get(path) or self._of_store(path)):
            raise ApiError(
                404, f"There is no {method} {path} here. Routes: {', '.join(self._routes)}.", code="not_found"
            )
        if method not in methods:
            allowed = ", ".join(methods)
            message = f"{path} takes {allowed}, not {method}."
            raise ApiError(405, message, code="method_not_allowed", allow=allowed)
        return methods[method]

    def _of_store(self, path: str) -> dict[str, Route]:
        if self._stored is not None:
            return self._stored.routes(path)
        if path.startswith(("/v1/files", "/v1/batches")):
            message = "This fleet has no place for files: `store.files` in fleet.yaml names one."
            raise ApiError(404, message, code="no_files")
        return {}

    async def _models(self, scope: Scope, _receive: Receive, send: Send) -> None:
        data = [card(name, desk) for name, desk in opened(self._desks, scope["holder"]).items()]
        await _json(send, 200, {"object": "list", "data": data})

    async def _model(self, scope: Scope, _receive: Receive, send: Send) -> None:
        name = scope["path"].removeprefix("/v1/models/")
        await _json(send, 200, card(name, by_name(self._desks, name, scope["holder"])))

    async def _health(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await _json(send, 200, {"status": "ok"})

    async def _ready(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        states = {
            name: "ready" if desk.ready() else "asleep" if desk.wakes else "starting"
            for name, desk in self._desks.items()
        }
        ready = not self.draining and "starting" not in states.values()
        status = "ready" if ready else "draining" if self.draining else "starting"
        await _json(send, 200 if ready else 503, {"status": status, "models": states})

    async def _scrape(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        lanes = [lane for desk in self._desks.values() for lane in desk.lanes]
        variants = [desk.variants for desk in self._desks.values() if desk.variants is not None]
        await respond(send, 200, self._metrics.text(lanes, variants), b"text/plain; version=0.0.4; charset=utf-8")


async def _json(send: Send, status: int, body: Any) -> None:
    await respond(send, status, msgspec.json.encode(body))


async def _refuse(send: Send, error: ApiError, body: dict[str, Any]) -> None:
    extra = [(name.encode(), value.encode()) for name, value in error.headers.items()]
    await respond(send, error.status, msgspec.json.encode(body), extra=extra)
