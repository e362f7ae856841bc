"""What has each tenant had of one model, by tier, and what of it is it charged for?"""

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field

import routing
from deployments.frames import Call, Part
from deployments.ticket import Ticket

WAITS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Waits are counted by these bounds, in seconds, and those beyond."""


@dataclass(slots=True)
class Share:
    """Since the router started."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    waits: list[int] = field(default_factory=lambda: [0] * (len(WAITS_S) + 1))
    """Requests that left for a replica, by how long they had waited."""
    waited_s: float = 0.0


class Shares:
    """Those of one lane. `counters` are its queue's, which charges prompts as they leave."""

    def __init__(self, counters: routing.Counters) -> None:
        self._counters = counters
        self.by_sender: dict[tuple[str, routing.Tier], Share] = defaultdict(Share)
        """By tenant and tier: no more than the fleet's file has, times tiers."""
        self.prompt_tokens = self.output_tokens = 0
        """Of all."""

    def came(self, ticket: Ticket) -> None:
        """A request was let in. A call's tokens are counted when the engine tells them."""
        self._count(ticket, 0 if isinstance(ticket.order, Call) else ticket.value.prompt_tokens, 0)

    def left(self, ticket: Ticket, now_s: float) -> None:
        """A request leaves for a replica."""
        if ticket.attempt:
            return
        share, waited_s = self._of(ticket), max(0.0, now_s - ticket.value.arrived_s)
        share.waits[bisect_left(WAITS_S, waited_s)] += 1
        share.waited_s += waited_s

    def made(self, ticket: Ticket, tokens: int) -> None:
        """An engine made tokens for it."""
        ticket.used.output_tokens += tokens
        self._count(ticket, 0, tokens)
        self._charge(ticket, tokens)

    def told(self, ticket: Ticket | None, part: Part) -> None:
        """An engine told what a call took and made; its prompt was charged by an estimate until now."""
        self._count(ticket, part.prompt_tokens, part.output_tokens)
        if ticket is None:
            return
        ticket.used.prompt_tokens += part.prompt_tokens
        ticket.used.cached_tokens += part.cached_tokens
        ticket.used.output_tokens += part.output_tokens
        self._charge(ticket, part.output_tokens)
        if part.prompt_tokens:
            self._charge(ticket, part.prompt_tokens - ticket.estimated_tokens)
            ticket.estimated_tokens = 0

    def give_back(self, ticket: Ticket) -> None:
        """Its replica was lost: what it had is read again, or made again, and charged where it goes."""
        self._charge(ticket, -ticket.charged_tokens)

    def _of(self, ticket: Ticket) -> Share:
        return self.by_sender[ticket.value.tenant, ticket.value.tier]

    def _count(self, ticket: Ticket | None, prompt_tokens: int, output_tokens: int) -> None:
        self.prompt_tokens += prompt_tokens
        self.output_tokens += output_tokens
        if ticket is not None:
            share = self._of(ticket)
            share.prompt_tokens += prompt_tokens
            share.output_tokens += output_tokens

    def _charge(self, ticket: Ticket, tokens: int) -> None:
        """So many tokens more, or less."""
        ticket.charged_tokens += tokens
        if tokens > 0:
            self._counters.charge(ticket.value.tenant, tokens)
        elif tokens:
            self._counters.refund(ticket.value.tenant, -tokens)
