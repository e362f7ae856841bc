"""May a request come in, and if not, when is it worth another try?"""

from dataclasses import dataclass
from math import inf

from routing.drain import Drain
from routing.gate import Gate, TierGates, retry_after_s
from routing.queue import Queue
from routing.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request may not come in."""

    status: int
    """HTTP status: 429 is the tenant's doing, 503 ours."""
    code: str
    """The reason for programs."""
    reason: str
    """One sentence for the client."""
    retry_after_s: int
    """For the Retry-After header."""


def admit(
    request: Request,
    *,
    queue: Queue,
    gates: TierGates,
    now_s: float,
    tenant_queued: Gate | None = None,
    tenant_open: Gate | None = None,
) -> Refusal | None:
    """Refuses a request that a limit forbids or that can't begin before its deadline; None lets it in.

    `gates` bound what waits in this router; the tenant's what it has waiting, and waiting or running. Each tells
    when a place is free, from the rate at which places became free. Time until the first token is taken to be that of
    the prompt tokens ahead of it, its own included, at the rate at which they left lately.
    """
    return (
        _full(request, tenant_open, now_s, "too_many_requests", "requests open")
        or _full(request, tenant_queued, now_s, "too_many_requests", "requests waiting")
        or _late(request, queue, gates.drain, now_s)
        or _overloaded(request, gates.of(request.tier), now_s)
    )


def wait_s(request: Request, *, queue: Queue, drain: Drain, now_s: float) -> float:
    """Predicted seconds until a request that came now would have left the queue; 0 while no rate is known."""
    if not queue:
        return 0.0
    tokens_per_s = drain.tokens_per_s(now_s)
    return (queue.tokens_ahead(request) + request.prompt_tokens) / tokens_per_s if tokens_per_s else 0.0


def _full(request: Request, gate: Gate | None, now_s: float, code: str, what: str) -> Refusal | None:
    if gate is None or (retry_s := gate.ask(request.key, now_s)) is None:
        return None
    reason = f"You have {gate.drain.inside} {what}, as many as this key may have in one router: {gate.limit}."
    return Refusal(status=429, code=code, reason=reason, retry_after_s=retry_s)


def _late(request: Request, queue: Queue, drain: Drain, now_s: float) -> Refusal | None:
    if request.deadline_s == inf:
        return None
    left_s = request.deadline_s - now_s
    ahead_s = wait_s(request, queue=queue, drain=drain, now_s=now_s)
    if ahead_s <= left_s:
        return None
    reason = f"The first token would come in about {ahead_s:.1f} s; the deadline is in {max(0.0, left_s):.1f} s."
    retry_s = retry_after_s(ahead_s - left_s)
    return Refusal(status=503, code="deadline", reason=reason, retry_after_s=retry_s)


def _overloaded(request: Request, gate: Gate, now_s: float) -> Refusal | None:
    if (retry_s := gate.ask(request.key, now_s)) is None:
        return None
    reason = (
        f"{gate.drain.inside} requests that are as urgent are waiting for this model, as many as this router keeps: "
        f"{gate.limit}."
    )
    return Refusal(status=503, code="overloaded", reason=reason, retry_after_s=retry_s)
