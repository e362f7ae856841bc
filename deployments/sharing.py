"""What does each router that uses this engine get: credits, and word of what others' tenants were served?

Puts what travels on the link into the words of `routing.Grants`, which decides.
"""

from collections.abc import Iterable

import routing
from deployments.frames import Call, Cancel, Delta, Failure, Load, Part, RouterFrame, Submit


class Sharing:
    """The routers of one engine. A router is known from its first frame until `leave`."""

    def __init__(self) -> None:
        self._grants = routing.Grants()
        self._tenants: dict[bytes, dict[int, tuple[str, int]]] = {}
        """By router and request that has not ended: its tenant, and the choices that are open; 0 of a call."""

    def hear(self, router: bytes, frame: RouterFrame, now_s: float) -> None:
        """A frame of a router came."""
        tenants = self._tenants.setdefault(router, {})
        for message in frame.messages:
            if isinstance(message, Submit | Call):
                self._grants.received(router, routing.Tier(message.tier), message.read_tokens)
                if not message.attempt:  # or a lost replica told of it
                    self._grants.served(router, message.tenant, prompt_tokens(message))
                choices = message.sampling.get("n", 1) if isinstance(message, Submit) else 0
                tenants[message.request] = (message.tenant, choices)
            elif isinstance(message, Cancel) and tenants.get(message.request, ("", 0))[1]:
                del tenants[message.request]  # of a call one more part comes, with what it took
        waiting, head = frame.waiting, None
        if waiting is not None:
            head = routing.Head(
                waiting.tenant,
                routing.Tier(waiting.tier),
                waiting.tokens,
                waiting.waiting_tokens,
                waiting.waiting_requests,
                waiting.weight,
            )
        self._grants.announce(router, head, heard_frame=frame.heard, now_s=now_s)

    def address(self, load: Load, router: bytes, sequence: int) -> None:
        """Makes a load that speaks of all routers one for the header of this frame to this router."""
        credit = self._grants.grant(
            router,
            sequence,
            requests=load.credit_requests,
            tokens=load.credit_tokens,
            most_tokens=max(load.room_tokens, load.credit_tokens),
        )
        load.credit_requests, load.credit_tokens = credit.requests, credit.tokens
        load.served = self._grants.news(router)

    def sent(self, router: bytes, deltas: Iterable[Delta], parts: Iterable[Part], failures: Iterable[Failure]) -> None:
        """A frame to this router left, with these answers."""
        self._grants.told(router)
        tenants = self._tenants.get(router, {})
        for delta in deltas:
            if (known := tenants.get(delta.request)) is not None:
                self._grants.served(router, known[0], len(delta.token_ids))
                if delta.finish is not None:
                    _end_choice(tenants, delta.request, known)
        for part in parts:
            if (known := tenants.get(part.request)) is not None:
                self._grants.served(router, known[0], part.output_tokens)
                if not part.more:
                    _end_choice(tenants, part.request, known)
        for failure in failures:
            tenants.pop(failure.request, None)

    def asks(self, router: bytes) -> bool:
        """Whether a router has something waiting and too little credit to send it."""
        return self._grants.short(router)

    def leave(self, router: bytes) -> None:
        """A router is gone."""
        self._grants.leave(router)
        self._tenants.pop(router, None)


def prompt_tokens(message: Submit | Call) -> int:
    """What its tenant is charged for on arrival."""
    return message.prompt_tokens if isinstance(message, Call) else len(message.prompt_ids) + len(message.said_ids)


def _end_choice(tenants: dict[int, tuple[str, int]], request: int, known: tuple[str, int]) -> None:
    tenant, choices = known
    if choices > 1:
        tenants[request] = (tenant, choices - 1)
    else:
        del tenants[request]
