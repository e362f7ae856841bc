"""Which routes does the router offer over HTTP, and what does each answer?"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from deployments.frames import Delta
from deployments.lane import Lane, Ticket
from deployments.openai_answers import Answer, Usage, error_event
from deployments.openai_wire import ApiError, ChatRequest, CompletionRequest, Common, parse, sampling
from deployments.render import Renderer
from deployments.router_metrics import RouterMetrics

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

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
            raise ApiError(404, f"There is no {method} {path} here. Routes: {', '.join(self._routes)}.", code="not_found")
        allowed, route = self._routes[path]
        if method != allowed:
            raise ApiError(405, f"{path} takes {allowed}, not {method}.", code="method_not_allowed")
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
        self, desk: Desk, request: Common, prompts: list[list[int]], receive: Receive, send: Send, *, chat: bool
    ) -> None:
        """Queues the prompts and answers when, or while, their deltas come."""
        parameters = sampling(request)
        if request.max_tokens is not None:
            parameters["max_tokens"] = request.max_tokens
        for ids in prompts:
            _check_length(ids, request.max_tokens, desk.lane.max_model_len)
        tickets: list[Ticket] = []
        try:
            for ids in prompts:
                tickets.append(desk.lane.enter(ids, parameters, stream=bool(request.stream)))
            answer = _answer(request, prompts, chat)
            await self._answer(desk.lane, tickets, answer, request, receive, send)
        finally:
            for ticket in tickets:
                desk.lane.leave(ticket)

    async def _answer(
        self, lane: Lane, tickets: list[Ticket], answer: Answer, request: Common, receive: Receive, send: Send
    ) -> None:
        watch = asyncio.ensure_future(_wait_for_disconnect(receive))
        watch.add_done_callback(lambda _: [lane.leave(ticket) for ticket in tickets])
        metered = self._metrics.watch(lane.model)
        try:
            if request.stream:
                await _stream(tickets, answer, request.n or 1, send, metered)
            else:
                await _whole(tickets, answer, request.n or 1, send, metered)
        finally:
            watch.cancel()

    def _desk(self, model: str) -> Desk:
        if self.draining:
            raise ApiError(503, "This router is shutting down.", kind="server_error", code="draining", retry_after_s=1)
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
        await _respond(send, 200, self._metrics.text(lanes), b"text/plain; version=0.0.4; charset=utf-8")


def _answer(request: Common, prompts: list[list[int]], chat: bool) -> Answer:
    options = request.stream_options
    return Answer(
        request.model,
        chat,
        Usage(sum(len(ids) for ids in prompts)),
        include_usage=options is not None and options.include_usage,
        every_usage=options is not None and options.continuous_usage_stats,
    )


async def _stream(tickets: list[Ticket], answer: Answer, n: int, send: Send, metered: Any) -> None:
    """Writes events as they come. An error before the first one is a plain refusal, later an error event."""
    opened = False
    try:
        async for position, deltas in _together(tickets, n):
            chunk = b"".join(answer.events(position * n + delta.index, delta) for delta in deltas)
            metered.tokens(sum(len(delta.token_ids) for delta in deltas))
            if not opened:
                opened = True
                await send(_EVENT_STREAM)
            if chunk:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if any(ticket.gone for ticket in tickets):
            metered.end("cancelled")
            return
        await send({"type": "http.response.body", "body": answer.ending()})
        metered.end("ok")
    except ApiError as error:
        metered.end("failed")
        if not opened:
            raise
        await send({"type": "http.response.body", "body": error_event(error.body)})


async def _whole(tickets: list[Ticket], answer: Answer, n: int, send: Send, metered: Any) -> None:
    """Answers once everything has come."""
    choices: dict[int, Delta] = {}
    try:
        async for position, deltas in _together(tickets, n):
            for delta in deltas:
                delta.index += position * n
                if (known := choices.get(delta.index)) is not None:
                    known.merge(delta)
                else:
                    choices[delta.index] = delta
    except ApiError:
        metered.end("failed")
        raise
    if any(ticket.gone for ticket in tickets):
        metered.end("cancelled")
        return
    metered.tokens(sum(len(choice.token_ids) for choice in choices.values()))
    metered.end("ok")
    answer.usage.cached_tokens = max((choice.cached_tokens for choice in choices.values()), default=0)
    await _respond(send, 200, answer.whole([choices[index] for index in sorted(choices)]))


async def _together(tickets: list[Ticket], n: int) -> AsyncIterator[tuple[int, list[Delta]]]:
    """Deltas of several prompts as they come, with the prompt's position, until all choices have ended."""
    if len(tickets) == 1:
        async for deltas in _deltas(tickets[0], n):
            yield 0, deltas
        return
    queue: asyncio.Queue[tuple[int, list[Delta] | ApiError | None]] = asyncio.Queue()

    async def read(position: int, ticket: Ticket) -> None:
        try:
            async for deltas in _deltas(ticket, n):
                queue.put_nowait((position, deltas))
            queue.put_nowait((position, None))
        except ApiError as error:
            queue.put_nowait((position, error))

    readers = [asyncio.ensure_future(read(position, ticket)) for position, ticket in enumerate(tickets)]
    try:
        ended = 0
        while ended < len(tickets):
            position, item = await queue.get()
            if isinstance(item, ApiError):
                raise item
            if item is None:
                ended += 1
            else:
                yield position, item
    finally:
        for reader in readers:
            reader.cancel()


async def _deltas(ticket: Ticket, n: int) -> AsyncIterator[list[Delta]]:
    ended = 0
    while ended < n and not ticket.gone:
        deltas = await ticket.take()
        ended += sum(delta.finish is not None for delta in deltas)
        if deltas:
            yield deltas


def _check_length(ids: list[int], max_tokens: int | None, max_model_len: int | None) -> None:
    if not ids:
        raise ApiError(400, "The prompt is empty.", param="prompt")
    if max_model_len is None or len(ids) + (max_tokens or 1) <= max_model_len:
        return
    raise ApiError(
        400,
        f"This model's context holds {max_model_len} tokens; the prompt has {len(ids)} and max_tokens asks for "
        f"{max_tokens or 1} more.",
        param="max_tokens" if max_tokens and len(ids) < max_model_len else "messages",
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


_EVENT_STREAM = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")],
}


async def _respond(
    send: Send, status: int, body: bytes, kind: bytes = b"application/json", extra: Any = ()
) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _json(send: Send, status: int, body: Any) -> None:
    await _respond(send, status, msgspec.json.encode(body))


async def _refuse(send: Send, error: ApiError) -> None:
    extra = [(b"retry-after", str(error.retry_after_s).encode())] if error.retry_after_s is not None else []
    await _respond(send, error.status, msgspec.json.encode(error.body), extra=extra)
