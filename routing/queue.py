"""Who is next?

By tier, with a floor for those that are less urgent; then fairly between tenants in tokens; then by deadline; then as
they came. Every operation takes logarithmic time: no turn walks through what waits.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace
from math import inf

from routing.counters import Counters, Floors
from routing.request import Request, Tier
from routing.spare import Spare

STALE = 16
"""Entries of requests that left from the middle which a tenant's heap may hold beside those that wait."""


@dataclass(slots=True)
class _Line:
    """What one tenant has waiting in one tier, by deadline and arrival. Who left is still in the heap for a while."""

    heap: list[tuple[float, float, int]] = field(default_factory=list)
    waiting: int = 0
    tokens: int = 0


class Queue:
    """What waits in one router for one model."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self.counters = Counters(weights)
        self.floors = Floors()
        self.spare = Spare()
        self.tokens = 0
        """Prompt tokens that wait."""
        self._waiting: dict[int, Request] = {}
        self._held_since_s: dict[int, float] = {}
        self._tiers = tuple(_Tier(self.counters, self._waiting) for _ in Tier)
        self._least = 0.0
        self._left_s = [-inf for _ in Tier]

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Request]:
        """Everything that waits, in no order."""
        return iter(self._waiting.values())

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._waiting

    def add(self, request: Request) -> None:
        """A request begins to wait. One of a tenant that had nothing waiting lifts the tenant's counter."""
        if not self.waits(request.tenant):
            self.counters.lift(request.tenant, self._least_counter())
        self._put(request)

    def remove(self, request_id: int) -> Request | None:
        """Takes a request out, wherever it waits; None when it does not."""
        request = self._waiting.pop(request_id, None)
        if request is not None:
            self._held_since_s.pop(request_id, None)
            self.tokens -= request.prompt_tokens
            self._tiers[request.tier].left(request)
        return request

    def first(self) -> Request | None:
        """The next request, which stays in the queue."""
        if not self._waiting:
            self.floors.clear()
            return None
        heads = [tier.first() for tier in self._tiers]
        tier = self.floors.due([None if head is None else head.prompt_tokens for head in heads])
        return None if tier is None else heads[tier]

    def left_s(self, tier: Tier) -> float:
        """When a request of this tier last left for a replica."""
        return self._left_s[tier]

    def leave(self, request: Request, now_s: float) -> None:
        """A request leaves for a replica: its tenant is charged for its prompt. Raises ValueError if it isn't here."""
        if self.remove(request.id) is None:
            raise ValueError(f"request {request.id} does not wait")
        self._least = max(self._least, self.counters.of(request.tenant))
        self._left_s[request.tier] = now_s
        self.counters.charge(request.tenant, request.prompt_tokens)
        self.floors.left(request.tier, request.prompt_tokens)

    def set_aside(self, request: Request) -> None:
        """Takes a request out for the rest of this turn; `put_back` returns it to its place."""
        since_s = self._held_since_s.get(request.id)
        self.remove(request.id)
        if since_s is not None:
            self._held_since_s[request.id] = since_s

    def put_back(self, request: Request) -> None:
        self._put(request)

    def held_since_s(self, request: Request, now_s: float) -> float:
        """When this request was first held back for a replica; now, if it wasn't."""
        return self._held_since_s.setdefault(request.id, now_s)

    def behind(self, request: Request) -> float:
        """Tokens (over weight) by which its tenant is behind the one that was served last."""
        return self._least - self.counters.of(request.tenant)

    def as_urgent(self, tier: Tier) -> int:
        """Requests of this tier and of more urgent ones that wait."""
        waiting = 0
        for one in self._tiers[: tier + 1]:
            waiting += one.waiting
        return waiting

    def in_tier(self, tier: Tier) -> int:
        """Requests of this tier that wait."""
        return self._tiers[tier].waiting

    def waits(self, tenant: str, tier: Tier | None = None) -> int:
        """Requests of this tenant that wait, in one tier or in all."""
        tiers = self._tiers if tier is None else (self._tiers[tier],)
        return sum(one.lines[tenant].waiting for one in tiers if tenant in one.lines)

    def tokens_ahead(self, request: Request) -> float:
        """Prompt tokens that would leave before a request that came now.

        All of the more urgent tiers; of its own tier what its tenant has waiting, and of each other tenant as much
        as that is over its weight, or all of it if that is less: both are served side by side. Other tenants are
        counted together, as if each had the mean backlog.
        """
        ahead = sum(tier.tokens for tier in self._tiers[: request.tier])
        own_tier = self._tiers[request.tier]
        line = own_tier.lines.get(request.tenant)
        own = line.tokens if line is not None else 0
        others, weight = own_tier.tokens - own, self.counters.weight(request.tenant)
        tenants = len(own_tier.lines) - (line is not None)
        return ahead + own + min(others, tenants * (own + request.prompt_tokens) / weight)

    def _put(self, request: Request) -> None:
        if request.id in self._waiting:
            raise ValueError(f"request {request.id} waits already")
        self._waiting[request.id] = request
        self.tokens += request.prompt_tokens
        self._tiers[request.tier].put(request)

    def _least_counter(self) -> float:
        """Of the tenants that wait; while none does, of the one that was served last."""
        return min((least for tier in self._tiers if (least := tier.least()) is not None), default=self._least)


class _Tier:
    """The tenants of one tier, by their counters, each with a line."""

    def __init__(self, counters: Counters, waiting: Mapping[int, Request]) -> None:
        self._counters, self._waiting = counters, waiting
        self.lines: dict[str, _Line] = {}
        self.tokens = self.waiting = 0
        self._order: list[tuple[float, str]] = []

    def put(self, request: Request) -> None:
        line = self.lines.get(request.tenant)
        if line is None:
            line = self.lines[request.tenant] = _Line()
            heappush(self._order, (self._counters.of(request.tenant), request.tenant))
        heappush(line.heap, (request.deadline_s, request.arrived_s, request.id))
        line.waiting += 1
        line.tokens += request.prompt_tokens
        self.tokens += request.prompt_tokens
        self.waiting += 1

    def left(self, request: Request) -> None:
        line = self.lines[request.tenant]
        line.waiting -= 1
        line.tokens -= request.prompt_tokens
        self.tokens -= request.prompt_tokens
        self.waiting -= 1
        if line.waiting and len(line.heap) > 2 * line.waiting + STALE:
            line.heap = [entry for entry in line.heap if entry[2] in self._waiting]
            heapify(line.heap)

    def first(self) -> Request | None:
        tenant = self._first_tenant()
        if tenant is None:
            return None
        heap = self.lines[tenant].heap
        while (request := self._waiting.get(heap[0][2])) is None:
            heappop(heap)
        return request

    def least(self) -> float | None:
        return None if self._first_tenant() is None else self._order[0][0]

    def _first_tenant(self) -> str | None:
        """Counters only grow, so that an entry that is out of date stands too far in front, never too far behind."""
        while self._order:
            counter, tenant = self._order[0]
            if not self.lines[tenant].waiting:
                heappop(self._order)
                del self.lines[tenant]
            elif (now := self._counters.of(tenant)) > counter:
                heapreplace(self._order, (now, tenant))
            else:
                return tenant
        return None
