"""How much may each router send to this engine now? The engine's side of late binding.

Routers meet at engines: each announces the head of its queue, each is told its credit. What is granted and can still
be used is never more than the engine has room for: a lower grant counts only after the router has said that it heard
of it.
"""

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from math import ceil

from routing.counters import Counters, Floors
from routing.request import Tier

STEPS_AHEAD = 2
"""Prefill steps' worth of prompt tokens that an engine takes in advance at most, so that no step waits for the link."""
AHEAD_S = 0.15
"""And no more than it reads in so many seconds: what is there can't be overtaken, and waits for what is read before."""
OWN_TIMES = 9
"""Or what it reads in so many times the seconds of a step that reads nothing, where those are longer: a prompt that is
read by and by takes more steps, and each has those seconds too."""
LEAST_TOKENS = 256
"""However long reading takes, so many."""
KV_RESERVE = 0.02
"""Share of the cache that is left for answers to grow: without it, who came last is put off again."""
IDLE_S = 1.0
"""A tenant that was at no router's head for so long comes back as one that was idle."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a router has waiting, as it announces it."""

    tenant: str
    """Of its next request."""
    tier: Tier
    tokens: int
    """Of that request, what an engine would have to read."""
    waiting_tokens: int
    """Of all that waits."""
    waiting_requests: int
    weight: float = 1.0
    """Of the tenant."""


@dataclass(frozen=True, slots=True)
class Credit:
    """What a router may send beyond what the engine had received from it when this was said."""

    requests: int
    tokens: int


@dataclass(slots=True)
class _Router:
    head: Head | None = None
    received_requests: int = 0
    received_tokens: int = 0
    grants: deque[tuple[int, int, int]] = field(default_factory=deque)
    """Frame, and the totals of requests and tokens up to which it let the router go: the last one that it heard of,
    and those after. One that exceeds those just before it stands for them too, with the first one's frame."""
    untold: dict[str, int] = field(default_factory=dict)
    """Tokens by which others' tenants were served since it was last told."""

    def keep(self, frame: int, requests: int, tokens: int) -> None:
        """Remembers a grant."""
        requests, tokens = self.received_requests + requests, self.received_tokens + tokens
        while self.grants and self.grants[-1][1] <= requests and self.grants[-1][2] <= tokens:
            frame, _, _ = self.grants.pop()
        self.grants.append((frame, requests, tokens))

    def outstanding(self) -> tuple[int, int]:
        """Requests and tokens that it may still send by what it was granted."""
        requests = max((grant[1] for grant in self.grants), default=0) - self.received_requests
        tokens = max((grant[2] for grant in self.grants), default=0) - self.received_tokens
        return max(0, requests), max(0, tokens)


def room_tokens(step_tokens: int, *, prompt_token_s: float, own_s: float) -> int:
    """Prompt tokens that an engine takes in advance.

    By those of a step, the seconds that each adds to one (0: unknown), and the seconds of one that reads nothing.
    """
    most = STEPS_AHEAD * step_tokens
    if not prompt_token_s:
        return most
    return min(most, max(LEAST_TOKENS, int(max(AHEAD_S, OWN_TIMES * own_s) / prompt_token_s)))


def credit_requests(slots: int, *, unfinished: int, ends_per_s: float) -> int:
    """Requests that an engine takes now: for its free slots, and for those that will be free within AHEAD_S.

    Else each would miss a step while a router hears of it. None where less than one is expected to be.
    """
    soon = AHEAD_S * ends_per_s
    return max(0, slots + (ceil(soon) if soon >= 1 else 0) - unfinished)


def credit_tokens(room: int, *, unread_tokens: int, kv_tokens: int, kv_free_tokens: int) -> int:
    """Of that room, what is left beside the prompts that it has to read: as much as its cache can take now.

    Of an engine that has nothing to read, or has no cache, it is all: so much may wait there for the cache, and no
    prompt waits for ever until enough of it is free.
    """
    if kv_tokens and unread_tokens:
        room = min(room, int(kv_free_tokens - KV_RESERVE * kv_tokens))
    return max(0, room - unread_tokens)


class Grants:
    """The credits of one engine."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self.counters = Counters(weights)
        self._floors = Floors()
        self._routers: dict[Hashable, _Router] = {}
        self._seen_s: dict[str, float] = {}
        self._last = 0.0

    def announce(self, router: Hashable, head: Head | None, *, heard_frame: int, now_s: float) -> None:
        """A router's frame came: its queue's head, and the last of our frames that it had heard when it sent it."""
        one = self._routers.setdefault(router, _Router())
        if head is not None:
            if now_s - self._seen_s.get(head.tenant, -IDLE_S) >= IDLE_S:
                self.counters.lift(head.tenant, self._least())
            self._seen_s[head.tenant] = now_s
            self.counters.weigh(head.tenant, head.weight)
        one.head = head
        while len(one.grants) > 1 and one.grants[1][0] <= heard_frame:
            one.grants.popleft()

    def received(self, router: Hashable, tier: Tier, tokens: int) -> None:
        """A request came, of which so many tokens must be read."""
        one = self._routers.setdefault(router, _Router())
        one.received_requests += 1
        one.received_tokens += tokens
        self._floors.left(tier, tokens)

    def served(self, router: Hashable, tenant: str, tokens: int) -> None:
        """So many tokens of a prompt or an answer went to a tenant through this router."""
        self._last = max(self._last, self.counters.of(tenant))
        self.counters.charge(tenant, tokens)
        for other, one in self._routers.items():
            if other != router:
                one.untold[tenant] = one.untold.get(tenant, 0) + tokens

    def news(self, router: Hashable) -> list[tuple[str, int]]:
        """By tenant, tokens that other routers' requests were served since this router was last `told`."""
        one = self._routers.get(router)
        return [] if one is None else list(one.untold.items())

    def told(self, router: Hashable) -> None:
        """The news reached a router."""
        if (one := self._routers.get(router)) is not None:
            one.untold.clear()

    def short(self, router: Hashable) -> bool:
        """Whether a router has something waiting that it can't send by what it was granted last."""
        one = self._routers.get(router)
        if one is None or one.head is None:
            return False
        _, requests, tokens = one.grants[-1] if one.grants else (0, 0, 0)
        return requests <= one.received_requests or tokens < one.received_tokens + one.head.tokens

    def leave(self, router: Hashable) -> None:
        """A router is gone, and its credit with it."""
        self._routers.pop(router, None)

    def outstanding(self) -> tuple[int, int]:
        """Requests and tokens that routers may still send."""
        all_of = [one.outstanding() for one in self._routers.values()]
        return sum(requests for requests, _ in all_of), sum(tokens for _, tokens in all_of)

    def grant(self, router: Hashable, frame: int, *, requests: int, tokens: int, most_tokens: int) -> Credit:
        """What a frame to a router grants it, where the engine has room for so many requests and tokens.

        `most_tokens` is the room of an engine that has nothing to read. A prompt larger than that is granted alone, to
        the router whose turn it is, when half of the room is free and nobody else can still send.
        """
        one = self._routers.setdefault(router, _Router())
        own, all_of = one.outstanding(), self.outstanding()
        others_requests, others_tokens = all_of[0] - own[0], all_of[1] - own[1]
        share = self._share(router, requests, tokens, most_tokens)
        credit_tokens = max(0, min(share.tokens, tokens - others_tokens))
        if one.head is not None and one.head.tokens > most_tokens and share.tokens >= one.head.tokens:
            credit_tokens = one.head.tokens if not others_tokens and 2 * tokens >= most_tokens else 0
        credit_requests = max(0, min(share.requests, requests - others_requests))
        one.keep(frame, credit_requests, credit_tokens)
        return Credit(credit_requests, credit_tokens)

    def _share(self, router: Hashable, requests: int, tokens: int, most_tokens: int) -> Credit:
        """What a router would get if nobody could still send by an earlier grant.

        The first of those whose turn it is gets its head in full, however large that is. Then all of them share, as far
        as they have something waiting. All routers share what is left, so that what comes next need not ask.
        """
        turn = self._turn(most_tokens)
        heads = [self._head(one) for one in turn]
        first = heads[0].tokens if heads else 0
        of_requests = _fill([head.waiting_requests for head in heads], requests, first=min(1, requests))
        of_tokens = _fill([head.waiting_tokens for head in heads], tokens, first=first)
        spare_requests = (requests - sum(of_requests)) // len(self._routers)
        spare_tokens = max(0, tokens - sum(of_tokens)) // len(self._routers)
        if router not in turn:
            return Credit(spare_requests, spare_tokens)
        place = turn.index(router)
        return Credit(of_requests[place] + spare_requests, of_tokens[place] + spare_tokens)

    def _turn(self, slack_tokens: int) -> list[Hashable]:
        """The routers whose turn it is, the first one first: of the tier that is due, with tenants served the least.

        Tenants that are within one batch of each other count as equal.
        """
        waiting = [(router, one.head) for router, one in self._routers.items() if one.head is not None]
        heads = [min((head.tokens for _, head in waiting if head.tier == tier), default=None) for tier in Tier]
        due = self._floors.due(heads)
        at = sorted(
            (self.counters.of(head.tenant), place, router)
            for place, (router, head) in enumerate(waiting)
            if head.tier == due
        )
        return [router for counter, _, router in at if counter <= at[0][0] + slack_tokens]

    def _head(self, router: Hashable) -> Head:
        head = self._routers[router].head
        if head is None:
            raise ValueError(f"router {router!r} has nothing waiting")
        return head

    def _least(self) -> float:
        """The least counter of the tenants at the heads; while nothing waits, of the one that was served last."""
        tenants = [one.head.tenant for one in self._routers.values() if one.head is not None]
        return min(map(self.counters.of, tenants), default=self._last)


def _fill(wanted: list[int], room: int, *, first: int) -> list[int]:
    """Shares of a room: as equal as can be, none above what is wanted; the first one's not below `first`.

    They are not above the room together, but for a `first` that is.
    """
    if not wanted:
        return []
    shares = [0] * len(wanted)
    shares[0], room = first, max(0, room - first)
    for done, place in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        more = min(max(0, wanted[place] - shares[place]), room // (len(wanted) - done))
        shares[place] += more
        room -= more
    return shares
