"""Which waiting requests leave together in this turn, and for which replicas?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from routing.choose import Choice, choose, read
from routing.prefixes import Prefixes
from routing.queue import Queue
from routing.replica import Replica
from routing.request import Request, Tier

LOOKAHEAD = 4
"""Requests that may wait for a busy replica while those behind them are looked at: bounds the work of a turn."""
BATCH_SHARE = 0.5
"""Tier batch takes only places where its own first token comes within this share of the target: an interactive request
that comes next waits no longer than that, and has the rest for its own prompt."""
BATCH_RUNS_S = 10.0
"""Tier batch is taken to run for so long after its last request left."""
BATCH_PATIENCE_S = 10.0
"""Once in so long a request of tier batch leaves wherever there is credit."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A request that leaves for a replica."""

    request: Request
    replica: str
    read_tokens: int
    """What is to be read of its prompt there; the rest is thought to be cached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a turn of the queue brought."""

    placed: list[Placement] = field(default_factory=list)
    """In order."""
    late: list[Request] = field(default_factory=list)
    """Taken out of the queue: their first tokens can't come by their deadlines any more."""


def batch(
    queue: Queue,
    replicas: Mapping[str, Replica],
    prefixes: Prefixes,
    *,
    now_s: float,
    random: Random,
    ttft_s: float,
) -> Turn:
    """Takes requests out of the queue, in its order, for as long as there is credit for them.

    `ttft_s`: seconds within which users should have their first token, which tier batch must not spoil.
    Each goes where its first token comes soonest; the more wait behind it, the more it counts how much is read for it.
    Where that replica has no credit for it now, though others have, it is held: no longer than the time that is gained
    there, and not while its tenant is served less than others.
    Nothing takes the replica's credit from it in this turn, but others that go elsewhere may leave before it. One that
    no replica has credit for ends the turn: nothing overtakes it, and engines see from its announcement what to grant.
    """
    able = [replica for replica in replicas.values() if replica.has_credit]
    if not able:
        return Turn()
    leaving = _Leaving(queue, replicas, prefixes, able, now_s, random, BATCH_SHARE * ttft_s)
    while leaving.able and len(leaving.held) < LOOKAHEAD and (request := queue.first()) is not None:
        if not leaving.place(request):
            break
    for request in leaving.held:
        queue.put_back(request)
    return leaving.turn


@dataclass(slots=True)
class _Leaving:
    """A turn under way."""

    queue: Queue
    replicas: Mapping[str, Replica]
    prefixes: Prefixes
    able: list[Replica]
    """Those that have credit, but for those that somebody is held for."""
    now_s: float
    random: Random
    batch_wait_s: float
    turn: Turn = field(default_factory=Turn)
    held: list[Request] = field(default_factory=list)
    alive: list[Replica] = field(init=False)

    def __post_init__(self) -> None:
        self.alive = [replica for replica in self.replicas.values() if not replica.draining]

    def place(self, request: Request) -> bool:
        """Sends the head of the queue or holds it back; False when nothing more leaves in this turn."""
        cached = self._cached(request)
        # Where nothing is cached, as much is read everywhere.
        behind_s = self._behind_s(request) if cached else 0.0
        choice = choose(request, self.alive, cached, self.random, behind_s=behind_s)
        if choice is None:
            return False
        if self.now_s + _expected_s(choice) > request.deadline_s:
            self.queue.remove(request.id)
            self.turn.late.append(request)
            return True
        if not self._has_room(choice, request):
            return False
        if choice.replica not in self.able or choice.replica.tokens < choice.read_tokens:
            other = _elsewhere(request, self.able, cached, self.random, behind_s)
            if other is None:
                return False
            if _worth_waiting(choice, other, request, self.queue, self.now_s):
                self._hold(request, choice.replica)
                return True
            choice = other
        self._send(request, choice)
        return True

    def _cached(self, request: Request) -> list[tuple[Replica, int]]:
        """Who is thought to have a part of its prompt."""
        cached = []
        for name, tokens in self.prefixes.cached_tokens(request).items():
            replica = self.replicas.get(name)
            if replica is not None and not replica.draining:
                cached.append((replica, tokens))
        return cached

    def _behind_s(self, request: Request) -> float:
        """Seconds that the reading of a token costs those together who wait, are as urgent, and share the replica."""
        replicas = len(self.alive)
        usual_s = sum([replica.token_s for replica in self.alive]) / replicas
        return usual_s * (self.queue.as_urgent(request.tier) - 1) / replicas

    def _hold(self, request: Request, replica: Replica) -> None:
        self.queue.set_aside(request)
        self.held.append(request)
        self.able = [one for one in self.able if one is not replica]

    def _send(self, request: Request, choice: Choice) -> None:
        replica, now_s = choice.replica, self.now_s
        if request.tier is not Tier.BATCH and now_s - self.queue.left_s(Tier.BATCH) < BATCH_RUNS_S:
            waited_s = now_s - request.arrived_s
            self.queue.spare.came(waited_s, free=self._free(), places=self._places(), now_s=now_s)
        self.queue.leave(request, now_s)
        replica.send(choice.read_tokens)
        self.prefixes.sent(request, replica.id)
        self.turn.placed.append(Placement(request, replica.id, choice.read_tokens))
        if not replica.has_credit:
            self.able.remove(replica)

    def _has_room(self, choice: Choice, request: Request) -> bool:
        """Whether a request can go there without harm to more urgent ones; only tier batch asks.

        While enough places stay free, a replica without work has room for any. Where none has room for long, its floor
        lets it go.
        """
        queue, tier, now_s = self.queue, request.tier, self.now_s
        if tier is not Tier.BATCH or queue.floors.owes(tier, request.prompt_tokens):
            return True
        if now_s - max(request.arrived_s, queue.left_s(tier)) >= BATCH_PATIENCE_S:
            return True
        if self._free() <= queue.spare.places(self._places(), now_s):
            return False
        return choice.seconds <= self.batch_wait_s or not choice.replica.work_tokens

    def _free(self) -> int:
        return sum([replica.most_running - replica.running for replica in self.alive])

    def _places(self) -> int:
        return sum([replica.most_running for replica in self.alive])


def _expected_s(choice: Choice) -> float:
    """Until the first token; nothing on a guess, before the replica has measured any step."""
    return choice.seconds + choice.replica.begun_s if choice.replica.step_s else 0.0


def _elsewhere(
    request: Request, able: list[Replica], cached: list[tuple[Replica, int]], random: Random, behind_s: float
) -> Choice | None:
    """The best of the replicas that have credit for it."""
    warm = [
        (replica, tokens) for replica, tokens in cached if replica in able and replica.tokens >= read(request, tokens)
    ]
    names = {replica.id for replica, _ in warm}
    fitting = [replica for replica in able if replica.tokens >= request.prompt_tokens or replica.id in names]
    return choose(request, fitting, warm, random, behind_s=behind_s)


def _worth_waiting(best: Choice, other: Choice, request: Request, queue: Queue, now_s: float) -> bool:
    """Whether the best replica, which has no credit for it now, will have some soon enough."""
    if not best.replica.slots or queue.behind(request) > request.prompt_tokens:
        return False
    return now_s - queue.held_since_s(request, now_s) < other.cost_s - best.cost_s
