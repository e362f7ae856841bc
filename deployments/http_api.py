"""Which routes does the router offer over HTTP, and what does each answer?"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from deployments.lane import Lane, Ticket
from deployments.openai_answers import Answer, Usage
from deployments.openai_wire import ApiError, ChatRequest, Common, CompletionRequest, parse, sampling
from deployments.render import Renderer
from deployments.reply import Send, respond, stream, whole
from deployments.router_metrics import RouterMetrics

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]

BODY_BYTES = 32 << 20
"""Largest request body taken."""
COMPLETION_TOKENS = 16
"""`max_tokens` of a text completion that names none: OpenAI's default, and vLLM's."""


@dataclass(eq=False, slots=True)
class Desk:
    """What the routes need of one model."""

    lane: Lane
    renderer: Renderer
    created: int
    wakes: bool
    """It may have no replica until somebody asks."""


class HttpApi:
    """The ASGI application. `desks` by model name, in the fleet's order."""

    def __init__(self, desks: dict[str, Desk], metrics: RouterMetrics) -> None:
        self._desks, self._metrics = desks, metrics
        self.draining = False
        self._routes: dict[str, tuple[str, Callable[..., Awaitable[None]]]] = {
            "/v1/chat/completions": ("POST", self._chat),
            "/v1/completions": ("POST", self._complete),
            "/v1/models": ("GET", self._models),
            "/health": ("GET", self._health),
            "/ready": ("GET", self._ready),
            "/metrics": ("GET", self._scrape),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            await self._route(scope)(receive, send)
        except ApiError as error:
            self._metrics.refused(error.status)
            await _refuse(send, error)

    def _route(self, scope: Scope) -> Callable[..., Awaitable[None]]:
        path, method = scope["path"], scope["method"]
        if path.startswith("/v1/models/") and method == "GET":
            return lambda receive, send: self._model(send, path.removeprefix("/v1/models/"))
        if path not in self._routes:
            raise ApiError(
                404, f"There is no {method} {path} here. Routes: {', '.join(self._routes)}.", code="not_found"
            )
        allowed, route = self._routes[path]
        if method != allowed:
            message = f"{path} takes {allowed}, not {method}."
            raise ApiError(405, message, code="method_not_allowed", allow=allowed)
        return route

    async def _chat(self, receive: Receive, send: Send) -> None:
        request = parse(ChatRequest, await _body(receive))
        desk = self._desk(request.model)
        ids = await desk.renderer.chat(request)
        if request.max_completion_tokens is not None:
            request.max_tokens = request.max_completion_tokens
        await self._run(desk, request, [ids], receive, send, chat=True)

    async def _complete(self, receive: Receive, send: Send) -> None:
        request = parse(CompletionRequest, await _body(receive))
        desk = self._desk(request.model)
        special = request.add_special_tokens is not False
        prompts = [
            prompt if isinstance(prompt, list) else await desk.renderer.text(prompt, special)
            for prompt in request.prompts()
        ]
        if request.max_tokens is None:
            request.max_tokens = COMPLETION_TOKENS
        await self._run(desk, request, prompts, receive, send, chat=False)

    async def _run(
        self,
        desk: Desk,
        request: Common,
        prompts: list[list[int]],
        receive: Receive,
        send: Send,
        *,
        chat: bool,
    ) -> None:
        """Queues the prompts and answers when, or while, their deltas come."""
        parameters = sampling(request)
        if request.max_tokens is not None:
            parameters["max_tokens"] = request.max_tokens
        for ids in prompts:
            _check_length(ids, request.max_tokens, desk.lane.max_model_len, "messages" if chat else "prompt")
        news, tickets = asyncio.Event(), list[Ticket]()
        watch = asyncio.ensure_future(_wait_for_disconnect(receive))
        watch.add_done_callback(lambda _: [desk.lane.leave(ticket) for ticket in tickets])
        try:
            for ids in prompts:
                tickets.append(desk.lane.enter(ids, parameters, stream=bool(request.stream), news=news))
            metered = self._metrics.watch(desk.lane.model)
            give = stream if request.stream else whole
            await give(tickets, news, _answer(request, prompts, chat), send, metered)
        finally:
            watch.cancel()

    def _desk(self, model: str) -> Desk:
        if self.draining:
            message = "This router is shutting down."
            raise ApiError(503, message, kind="server_error", code="draining", retry_after_s=1)
        desk = self._desks.get(model)
        if desk is None:
            known = ", ".join(self._desks)
            raise ApiError(
                404,
                f"The model '{model}' does not exist. This server has: {known}.",
                param="model",
                code="model_not_found",
            )
        return desk

    async def _models(self, _receive: Receive, send: Send) -> None:
        data = [self._card(name) for name in self._desks]
        await _json(send, 200, {"object": "list", "data": data})

    async def _model(self, send: Send, name: str) -> None:
        self._desk(name)
        await _json(send, 200, self._card(name))

    def _card(self, name: str) -> dict[str, Any]:
        desk = self._desks[name]
        return {
            "id": name,
            "object": "model",
            "created": desk.created,
            "owned_by": "headrace",
            "max_model_len": desk.lane.max_model_len,
        }

    async def _health(self, _receive: Receive, send: Send) -> None:
        await _json(send, 200, {"status": "ok"})

    async def _ready(self, _receive: Receive, send: Send) -> None:
        states = {
            name: "ready" if desk.lane.ready() else "asleep" if desk.wakes else "starting"
            for name, desk in self._desks.items()
        }
        ready = not self.draining and "starting" not in states.values()
        status = "ready" if ready else "draining" if self.draining else "starting"
        await _json(send, 200 if ready else 503, {"status": status, "models": states})

    async def _scrape(self, _receive: Receive, send: Send) -> None:
        lanes = [desk.lane for desk in self._desks.values()]
        await respond(send, 200, self._metrics.text(lanes), b"text/plain; version=0.0.4; charset=utf-8")


def _answer(request: Common, prompts: list[list[int]], chat: bool) -> Answer:
    options = request.stream_options
    return Answer(
        request.model,
        chat,
        Usage(sum(len(ids) for ids in prompts)),
        n=request.n or 1,
        include_usage=options is not None and options.include_usage,
        every_usage=options is not None and options.continuous_usage_stats,
    )


def _check_length(ids: list[int], max_tokens: int | None, max_model_len: int | None, field: str) -> None:
    if not ids:
        raise ApiError(400, "The prompt is empty.", param=field)
    if max_model_len is None or len(ids) + (max_tokens or 1) <= max_model_len:
        return
    raise ApiError(
        400,
        f"This model's context holds {max_model_len} tokens; the prompt has {len(ids)} and max_tokens "
        f"asks for {max_tokens or 1} more.",
        param="max_tokens" if len(ids) < max_model_len else field,
        code="context_length_exceeded",
    )


async def _body(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ApiError(499, "The client closed the connection before the body was complete.")
        part = event.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > BODY_BYTES:
            raise ApiError(413, f"The body is larger than {BODY_BYTES} bytes.", code="body_too_large")
        if not event.get("more_body"):
            return b"".join(parts)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _json(send: Send, status: int, body: Any) -> None:
    await respond(send, status, msgspec.json.encode(body))


async def _refuse(send: Send, error: ApiError) -> None:
    extra = [(name.encode(), value.encode()) for name, value in error.headers.items()]
    await respond(send, error.status, msgspec.json.encode(error.body), extra=extra)
