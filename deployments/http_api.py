"""Which routes does the router offer over HTTP, and what does each answer?"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from deployments import anthropic_errors, forward, limits
from deployments.fleet import Limits, RouterSettings, Tenant
from deployments.lane import Lane
from deployments.open_requests import OpenRequests
from deployments.openai_answers import Answer, Usage, error_event
from deployments.openai_wire import (
    COMPLETION_TOKENS,
    ApiError,
    ChatRequest,
    Common,
    CompletionRequest,
    parse,
    sampling,
)
from deployments.patience import Patience
from deployments.render import Renderer
from deployments.reply import Send, relay, respond, stream, whole
from deployments.router_metrics import RouterMetrics
from deployments.sender import Sender
from deployments.tenants import Tenants, sender
from deployments.ticket import Ticket

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]

OPEN = frozenset({"/health", "/ready", "/metrics"})
"""Routes that need no key."""


@dataclass(eq=False, slots=True)
class Desk:
    """What the routes need of one model."""

    lane: Lane
    renderer: Renderer
    created: int
    wakes: bool
    """It may have no replica until somebody asks."""
    reasons: bool = False
    """Its text is parsed for reasoning, which vLLM's application does: every chat goes there."""

    @property
    def pooling(self) -> str | None:
        """What its replicas give instead of text, by vLLM's name; vLLM's application refuses what asks for text."""
        return next((task for one in self.lane.replicas.values() if (task := one.facts.get("pooling"))), None)


class HttpApi:
    """The ASGI application. `desks` by model name, in the fleet's order."""

    def __init__(
        self,
        desks: dict[str, Desk],
        metrics: RouterMetrics,
        settings: RouterSettings,
        tenants: Sequence[Tenant] = (),
    ) -> None:
        self._desks, self._metrics, self._settings = desks, metrics, settings
        self._tenants = Tenants(tenants)
        self._allowed = forward.Allowed(
            media_urls=settings.allow_media_urls, chat_templates=settings.allow_chat_templates
        )
        self._open = OpenRequests(settings.limits.open_requests)
        self.draining = False
        """/ready fails; everything else goes on."""
        self._routes: dict[str, tuple[str, Callable[..., Awaitable[None]]]] = {
            **dict.fromkeys(forward.ROUTES, ("POST", self._pass_on)),
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
            route = self._route(scope)
            if scope["path"] not in OPEN:
                scope["tenant"] = self._tenants.identify(scope["headers"])
            if scope["method"] == "GET":
                await route(scope, receive, send)
            else:
                with self._open.entered():
                    await route(scope, receive, send)
        except ApiError as error:
            self._metrics.refused(error.status)
            body = anthropic_errors.body(error) if forward.anthropic(scope["path"]) else error.body
            await _refuse(send, error, body)

    def _route(self, scope: Scope) -> Callable[..., Awaitable[None]]:
        path, method = scope["path"], scope["method"]
        if path.startswith("/v1/models/") and method == "GET":
            return lambda _scope, _receive, send: self._model(send, path.removeprefix("/v1/models/"))
        if path not in self._routes:
            raise ApiError(
                404, f"There is no {method} {path} here. Routes: {', '.join(self._routes)}.", code="not_found"
            )
        allowed, route = self._routes[path]
        if method != allowed:
            message = f"{path} takes {allowed}, not {method}."
            raise ApiError(405, message, code="method_not_allowed", allow=allowed)
        return route

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive, self._settings.limits)
        if (request := parse(ChatRequest, body)) is None or (desk := self._desk(request.model)).reasons or desk.pooling:
            return await self._forward(scope, body, receive, send)
        self._check_limits(request)
        if request.max_completion_tokens is not None:
            request.max_tokens = request.max_completion_tokens
        ids = await desk.renderer.chat(request)
        await self._run(desk, request, [ids], scope, receive, send, chat=True)

    async def _complete(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive, self._settings.limits)
        if (request := parse(CompletionRequest, body)) is None or (desk := self._desk(request.model)).pooling:
            return await self._forward(scope, body, receive, send)
        self._check_limits(request)
        if request.max_tokens is None:
            request.max_tokens = min(COMPLETION_TOKENS, self._settings.limits.max_tokens or COMPLETION_TOKENS)
        special = request.add_special_tokens is not False
        prompts = [
            prompt if isinstance(prompt, list) else await desk.renderer.text(prompt, special)
            for prompt in request.prompts()
        ]
        await self._run(desk, request, prompts, scope, receive, send, chat=False)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._forward(scope, await _body(receive, self._settings.limits), receive, send)

    async def _forward(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Lets vLLM's own application answer."""
        path, fields = scope["path"], forward.read(body)
        desk = self._asked(fields)
        if fields is not None:
            forward.check(path, fields, self._allowed)
            limits.check(fields, self._settings.limits)
        passed, tokens = forward.headers(scope["headers"]), forward.prompt_tokens(path, body)
        by = _sender(scope, fields.get("service_tier") if fields is not None else None)
        if by.cache_salt is not None and fields:
            body = forward.salted(path, body, by.cache_salt)
        with _watched(desk.lane, receive, self._settings, stream=False) as tickets:
            tickets.append(desk.lane.call(path, passed, body, tokens, by))
            took = partial(desk.lane.took, tickets[0])
            as_event = anthropic_errors.event if forward.anthropic(path) else error_event
            status = await relay(tickets[0], send, self._metrics.watch(desk.lane.model, tokens), took, as_event)
        if status is not None and status >= 400:
            self._metrics.refused(status)

    async def _run(
        self,
        desk: Desk,
        request: Common,
        prompts: list[list[int]],
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        chat: bool,
    ) -> None:
        """Queues the prompts and answers when, or while, their deltas come."""
        parameters, most, field = sampling(request), self._settings.limits.max_tokens, "messages" if chat else "prompt"
        if (max_tokens := most if request.max_tokens is None else request.max_tokens) is not None:
            parameters["max_tokens"] = max_tokens
        for ids in prompts:
            limits.check_prompt(len(ids), self._settings.limits, field)
            _check_length(ids, request.max_tokens, desk.lane.max_model_len, field)
        news, by = asyncio.Event(), _sender(scope, request.service_tier)
        with _watched(desk.lane, receive, self._settings, stream=bool(request.stream)) as tickets:
            for ids in prompts:
                tickets.append(desk.lane.enter(ids, parameters, stream=bool(request.stream), news=news, sender=by))
            metered = self._metrics.watch(desk.lane.model, sum(map(len, prompts)))
            give = stream if request.stream else whole
            await give(tickets, news, _answer(request, prompts, chat), send, metered)

    def _check_limits(self, request: Common) -> None:
        limits.check({name: getattr(request, name, None) for name in limits.FIELDS}, self._settings.limits)

    def _asked(self, fields: dict[str, Any] | None) -> Desk:
        """The desk that a forwarded body is for; with one model, a body need not name it."""
        name = fields.get("model") if fields is not None else None
        if isinstance(name, str) and name:
            return self._desk(name)
        if len(self._desks) == 1:
            return self._desk(next(iter(self._desks)))
        if fields is None:
            raise ApiError(400, "The body must be a JSON object.", code="invalid_json")
        raise ApiError(400, f"'model' must be one of: {', '.join(self._desks)}.", param="model")

    def _desk(self, model: str) -> Desk:
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

    async def _models(self, _scope: Scope, _receive: Receive, send: Send) -> None:
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
            "pooling": desk.pooling,
        }

    async def _health(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await _json(send, 200, {"status": "ok"})

    async def _ready(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        states = {
            name: "ready" if desk.lane.ready() else "asleep" if desk.wakes else "starting"
            for name, desk in self._desks.items()
        }
        ready = not self.draining and "starting" not in states.values()
        status = "ready" if ready else "draining" if self.draining else "starting"
        await _json(send, 200 if ready else 503, {"status": status, "models": states})

    async def _scrape(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        lanes = [desk.lane for desk in self._desks.values()]
        await respond(send, 200, self._metrics.text(lanes), b"text/plain; version=0.0.4; charset=utf-8")


def _sender(scope: Scope, service_tier: object) -> Sender:
    return sender(scope["tenant"], scope["headers"], service_tier)


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


async def _body(receive: Receive, allowed: Limits) -> bytes:
    try:
        async with asyncio.timeout(allowed.body_s):
            return await _read(receive, allowed.body_bytes)
    except TimeoutError:
        message = f"The body was not complete {allowed.body_s:g} s after the head of the request."
        # What may still come of it is not waited for.
        raise ApiError(408, message, code="request_timeout", close=True) from None


async def _read(receive: Receive, most_bytes: int) -> bytes:
    parts, size = [], 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ApiError(499, "The client closed the connection before the body was complete.")
        part = event.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > most_bytes:
            raise ApiError(413, f"The body is larger than {most_bytes} bytes.", code="body_too_large")
        if not event.get("more_body"):
            return b"".join(parts)


@contextmanager
def _watched(lane: Lane, receive: Receive, settings: RouterSettings, *, stream: bool) -> Iterator[list[Ticket]]:
    """For the tickets of one client: they fail when it waited too long, and leave the lane with it or at the end."""
    tickets: list[Ticket] = []
    watch = asyncio.ensure_future(_wait_for_disconnect(receive))
    watch.add_done_callback(lambda _: [lane.leave(ticket) for ticket in tickets])
    patience = Patience(tickets, settings, stream=stream)
    try:
        yield tickets
    finally:
        patience.close()
        watch.cancel()


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _json(send: Send, status: int, body: Any) -> None:
    await respond(send, status, msgspec.json.encode(body))


async def _refuse(send: Send, error: ApiError, body: dict[str, Any]) -> None:
    extra = [(name.encode(), value.encode()) for name, value in error.headers.items()]
    await respond(send, error.status, msgspec.json.encode(body), extra=extra)
