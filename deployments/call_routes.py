"""How does a request reach vLLM's own application, and its answer the client?"""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from deployments import anthropic_errors, conversations, forward, limits
from deployments.bill import Bill, Journal, Toll
from deployments.desks import Desks, asked
from deployments.fleet import RouterSettings
from deployments.lane import Lane
from deployments.openai_answers import error_event
from deployments.receiving import Receive, Scope, most_urgent, read_body, watched
from deployments.reply import Send, relay
from deployments.router_metrics import RouterMetrics
from deployments.sender import Sender
from deployments.tenants import sender, wish
from deployments.tolls import Tolls


class CallRoutes:
    """All that an engine's application answers."""

    def __init__(
        self,
        desks: Desks,
        metrics: RouterMetrics,
        settings: RouterSettings,
        journal: Journal | None,
        tolls: Tolls | None,
    ) -> None:
        self._desks, self._metrics, self._settings = desks, metrics, settings
        self._journal, self._tolls = journal, tolls
        self._allowed = forward.Allowed(
            media_urls=settings.allow_media_urls, chat_templates=settings.allow_chat_templates
        )

    async def take(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads a request and passes it on."""
        await self.pass_on(scope, await read_body(receive, self._settings.limits), receive, send)

    async def pass_on(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Lets vLLM's own application answer a request whose body was read."""
        path, holder, fields = scope["path"], scope["holder"], forward.read(body)
        desk = asked(self._desks, fields, holder)
        if fields is not None:
            forward.check(path, fields, self._allowed)
            limits.check(fields, self._settings.limits)
        passed, tokens = forward.headers(scope["headers"]), forward.prompt_tokens(path, body)
        service_tier = fields.get("service_tier") if fields is not None else None
        by = sender(holder, scope["headers"], service_tier, self._settings.deadlines, most_urgent(scope))
        if by.cache_salt is not None and fields:
            body = forward.salted(path, body, by.cache_salt)
        opening = conversations.of_body(fields) if desk.variants is not None else None
        door = desk.door(by, wish(holder, by, scope["headers"], service_tier, opening))
        lane = door.lane
        with (
            await self._admitted(by, lane, tokens, fields or {}) as toll,
            watched(lane, receive, self._settings, stream=False) as tickets,
        ):
            with self._metrics.outcomes.door(lane.model, by):
                tickets.append(lane.call(path, passed, body, tokens, by))
            took = partial(lane.took, tickets[0])
            as_event = anthropic_errors.event if forward.anthropic(path) else error_event
            metered = self._metrics.watch(lane.model, tokens, by)
            bill = Bill(self._journal, toll, by, desk.lane.model, door.variant, tickets)
            status = await relay(tickets[0], send, metered, bill, took, as_event, door.extra)
        if status is not None and status >= 400:
            self._metrics.refused(status)

    async def _admitted(
        self, by: Sender, lane: Lane, tokens: int, fields: dict[str, Any]
    ) -> AbstractContextManager[Toll | None]:
        """What limits of tenant and key hold for it, as far as its body tells. Raises ApiError(429, 503)."""
        if self._tolls is None:
            return nullcontext()
        lengths = [value for name in limits.LENGTHS if isinstance(value := fields.get(name), int)]
        asked = fields.get("n")
        with self._metrics.outcomes.door(lane.model, by):
            return await self._tolls.admit(
                by,
                prompt_tokens=tokens,
                answers=asked if isinstance(asked, int) and asked > 0 else 1,
                max_tokens=max(lengths, default=None),
                room_tokens=lane.max_model_len,
            )
