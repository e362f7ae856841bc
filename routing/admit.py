"""May a request come in, and if not, when is it worth another try?"""

import math
from dataclasses import dataclass

from routing.request import Request

RETRY_UNKNOWN_S = 60
"""Told while no drain rate is known: about the start of an engine."""
RETRY_MOST_S = 3600
"""A forecast beyond an hour says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request may not come in."""

    status: int
    """HTTP status."""
    reason: str
    """One sentence for the client."""
    retry_after_s: int
    """For the Retry-After header."""


def admit(
    request: Request,
    *,
    queued_requests: int,
    queued_tokens: int,
    drain_tokens_per_s: float,
    max_queued_requests: int,
) -> Refusal | None:
    """Refuses a request when `max_queued_requests` wait already; None lets it in.

    Retry-After is the time after which everything that waits now, this prompt included, has left the queue:
    (queued_tokens + prompt_tokens) / drain_tokens_per_s, within 1 second and RETRY_MOST_S.
    """
    if queued_requests < max_queued_requests:
        return None
    return Refusal(
        status=503,
        reason=f"{queued_requests} requests are waiting for this model, as many as this router keeps.",
        retry_after_s=_retry_after_s(queued_tokens + request.prompt_tokens, drain_tokens_per_s),
    )


def _retry_after_s(tokens: int, tokens_per_s: float) -> int:
    if tokens_per_s <= 0:
        return RETRY_UNKNOWN_S
    return math.ceil(min(max(tokens / tokens_per_s, 1), RETRY_MOST_S))
