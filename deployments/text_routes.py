"""How is a request of plain text answered?"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext

from deployments import conversations, limits
from deployments.bill import Bill, Journal, Toll
from deployments.desks import Desk, Desks, by_name
from deployments.fleet import RouterSettings
from deployments.lane import Lane
from deployments.openai_answers import Answer, Usage
from deployments.openai_wire import (
    COMPLETION_TOKENS,
    ApiError,
    ChatRequest,
    Common,
    CompletionRequest,
    parse,
    sampling,
)
from deployments.receiving import Receive, Scope, most_urgent, read_body, watched
from deployments.reply import Send, stream, whole
from deployments.router_metrics import RouterMetrics
from deployments.sender import Sender
from deployments.tenants import sender, wish
from deployments.tolls import Tolls


class TextRoutes:
    """Chats and completions. What is no plain text goes to `pass_on`, with its body."""

    def __init__(
        self,
        desks: Desks,
        metrics: RouterMetrics,
        settings: RouterSettings,
        pass_on: Callable[[Scope, bytes, Receive, Send], Awaitable[None]],
        journal: Journal | None,
        tolls: Tolls | None,
    ) -> None:
        self._desks, self._metrics, self._settings, self._pass_on = desks, metrics, settings, pass_on
        self._journal, self._tolls = journal, tolls

    async def chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive, self._settings.limits)
        request = parse(ChatRequest, body)
        if request is None or (desk := by_name(self._desks, request.model, scope["holder"])).reasons or desk.pooling:
            return await self._pass_on(scope, body, receive, send)
        self._check_limits(request)
        if request.max_completion_tokens is not None:
            request.max_tokens = request.max_completion_tokens
        ids = await desk.renderer.chat(request)
        # Conversations matter to the choice of a variant only.
        opening = conversations.of_chat(request) if desk.variants is not None else None
        await self._run(desk, request, [ids], scope, receive, send, chat=True, opening=opening)

    async def complete(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive, self._settings.limits)
        request = parse(CompletionRequest, body)
        if request is None or (desk := by_name(self._desks, request.model, scope["holder"])).pooling:
            return await self._pass_on(scope, body, receive, send)
        self._check_limits(request)
        if request.max_tokens is None:
            request.max_tokens = min(COMPLETION_TOKENS, self._settings.limits.max_tokens or COMPLETION_TOKENS)
        special = request.add_special_tokens is not False
        prompts = [
            prompt if isinstance(prompt, list) else await desk.renderer.text(prompt, special)
            for prompt in request.prompts()
        ]
        await self._run(desk, request, prompts, scope, receive, send, chat=False)

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
        opening: int | None = None,
    ) -> None:
        """Queues the prompts and answers when, or while, their deltas come."""
        parameters, most, field = sampling(request), self._settings.limits.max_tokens, "messages" if chat else "prompt"
        if (max_tokens := most if request.max_tokens is None else request.max_tokens) is not None:
            parameters["max_tokens"] = max_tokens
        for ids in prompts:
            limits.check_prompt(len(ids), self._settings.limits, field)
        holder, headers, tier = scope["holder"], scope["headers"], request.service_tier
        by = sender(holder, headers, tier, self._settings.deadlines, most_urgent(scope))
        door = desk.door(by, wish(holder, by, headers, tier, opening))
        lane, news = door.lane, asyncio.Event()
        for ids in prompts:
            _check_length(ids, request.max_tokens, lane.max_model_len, field)
        with (
            await self._admitted(by, lane, prompts, max_tokens, request.n or 1) as toll,
            watched(lane, receive, self._settings, stream=bool(request.stream)) as tickets,
        ):
            with self._metrics.outcomes.door(lane.model, by):
                for ids in prompts:
                    tickets.append(lane.enter(ids, parameters, stream=bool(request.stream), news=news, sender=by))
            metered = self._metrics.watch(lane.model, sum(map(len, prompts)), by)
            bill = Bill(self._journal, toll, by, desk.lane.model, door.variant, tickets)
            give = stream if request.stream else whole
            await give(tickets, news, _answer(request, prompts, chat), send, metered, bill, door.extra)

    async def _admitted(
        self, by: Sender, lane: Lane, prompts: list[list[int]], max_tokens: int | None, n: int
    ) -> AbstractContextManager[Toll | None]:
        """What limits of tenant and key hold for it. Raises ApiError(429, 503)."""
        if self._tolls is None:
            return nullcontext()
        shortest = min(map(len, prompts))
        with self._metrics.outcomes.door(lane.model, by):
            return await self._tolls.admit(
                by,
                prompt_tokens=sum(map(len, prompts)),
                answers=n * len(prompts),
                max_tokens=max_tokens,
                room_tokens=None if lane.max_model_len is None else lane.max_model_len - shortest,
            )

    def _check_limits(self, request: Common) -> None:
        limits.check({name: getattr(request, name, None) for name in limits.FIELDS}, self._settings.limits)


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
