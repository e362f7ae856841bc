"""Who may come into a lane? `routing.admit` decides; here are the gates that it asks, kept up to date."""

from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic

import routing
from deployments.openai_wire import ApiError


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantLimits:
    """What one tenant may have in one router for one model; None: no limit of its own."""

    queued_requests: int | None = None
    """Waiting."""
    open_requests: int | None = None
    """Waiting or running."""


class Admission:
    """The gates of one lane: what may wait in all, and what each tenant may have waiting and open."""

    def __init__(self, max_queued_requests: int, limits: Mapping[str, TenantLimits]) -> None:
        self._gates = routing.TierGates(max_queued_requests)
        self._queued = {name: routing.Gate(one.queued_requests) for name, one in limits.items() if one.queued_requests}
        self._open = {name: routing.Gate(one.open_requests) for name, one in limits.items() if one.open_requests}

    def ask(self, request: routing.Request, queue: routing.Queue) -> None:
        """Raises ApiError when a request may not come in."""
        refusal = routing.admit(
            request,
            queue=queue,
            gates=self._gates,
            now_s=monotonic(),
            tenant_queued=self._queued.get(request.tenant),
            tenant_open=self._open.get(request.tenant),
        )
        if refusal is not None:
            raise ApiError(
                refusal.status,
                refusal.reason,
                kind="server_error" if refusal.status >= 500 else "rate_limit_error",
                code=refusal.code,
                retry_after_s=refusal.retry_after_s,
            )

    def wait_s(self, request: routing.Request, queue: routing.Queue) -> float:
        """Predicted seconds until a request that came now would have left the queue."""
        return routing.wait_s(request, queue=queue, drain=self._gates.drain, now_s=monotonic())

    def opened(self, request: routing.Request) -> None:
        """A request came in."""
        if (gate := self._open.get(request.tenant)) is not None:
            gate.drain.enter(monotonic())

    def closed(self, request: routing.Request) -> None:
        """A request that came in ended, however."""
        if (gate := self._open.get(request.tenant)) is not None:
            gate.drain.leave(monotonic(), request.prompt_tokens)

    def waits(self, request: routing.Request) -> None:
        """A request begins to wait, for the first time or again."""
        now_s = monotonic()
        self._gates.enter(request.tier, now_s)
        if (gate := self._queued.get(request.tenant)) is not None:
            gate.drain.enter(now_s)

    def left(self, request: routing.Request) -> None:
        """A request waits no longer."""
        now_s = monotonic()
        self._gates.leave(request.tier, now_s, request.prompt_tokens)
        if (gate := self._queued.get(request.tenant)) is not None:
            gate.drain.leave(now_s, request.prompt_tokens)
