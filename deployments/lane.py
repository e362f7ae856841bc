"""Where is each request of one model: waiting here, or running on which replica, and what came back?

The lane decides nothing itself: `routing` says who may come in, who is next and which replica.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from random import Random
from time import monotonic
from typing import Any

import routing
from deployments.admission import Admission, TenantLimits
from deployments.fleet import RouterSettings, Scaling
from deployments.frames import WINDOW_BYTES, Call, Cancel, Delta, EngineFrame, Failure, Part, Spent, Submit, Took
from deployments.link import RouterEnd
from deployments.replica import Replica
from deployments.replicas import Replicas
from deployments.sender import ANYBODY, Sender
from deployments.shares import Shares
from deployments.ticket import Ticket, choices

RETRIES = 2
"""How often a request of which its reader has nothing begins again when its replica is lost, before it fails."""
TELL_BYTES = WINDOW_BYTES // 4
"""What a reader took of a call's answer is told to the engine in lumps of so much."""


class Lane:
    """The queue and the replicas of one model, in one router. Belongs to one event loop."""

    def __init__(
        self,
        model: str,
        *,
        max_queued_requests: int,
        log: Callable[[str], None],
        continuations: int = RouterSettings().continuations,
        ttft_s: float = Scaling().ttft_s,
        weights: Mapping[str, float] | None = None,
        limits: Mapping[str, TenantLimits] | None = None,
    ) -> None:
        self.model, self._log, self._most_continuations, self._ttft_s = model, log, continuations, ttft_s
        self._admission = Admission(max_queued_requests, limits or {})
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Ticket] = {}
        self._queue = routing.Queue(weights)
        self._random = Random()
        self._seen = Replicas()
        self.replicas = self._seen.by_id
        self._dispatch_due = False
        self.shares = Shares(self._queue.counters)
        self.retries = self.continuations = 0
        self.max_model_len: int | None = None

    @property
    def queued_requests(self) -> int:
        return len(self._waiting)

    @property
    def queued_tokens(self) -> int:
        return self._queue.tokens

    def queued_of(self, tenant: str, tier: routing.Tier) -> int:
        """Requests of one sender that wait."""
        return self._queue.waits(tenant, tier)

    def queued_in(self, tier: routing.Tier) -> int:
        """Requests of a tier that wait."""
        return self._queue.in_tier(tier)

    def open_requests(self) -> int:
        """Requests waiting here or running on a replica for us."""
        return len(self._waiting) + sum(len(replica.tickets) for replica in self.replicas.values())

    def ready(self) -> bool:
        """Whether a replica would take a request now."""
        return any(replica.heard and not replica.load.draining for replica in self.replicas.values())

    def settled(self) -> bool:
        """Whether it has replicas, of which none is about to go."""
        return bool(self.replicas) and all(
            replica.heard and not replica.load.draining for replica in self.replicas.values()
        )

    def wait_s(self, sender: Sender) -> float:
        """Predicted seconds until a prompt of this sender that came now would begin to be read; 0: nothing is known."""
        value = sender.request(0, 0, 0, (0, ()))
        routes = [replica.route for replica in self.replicas.values() if not replica.route.draining]
        there_s = min((route.begun_s + route.token_s * route.work_tokens for route in routes), default=0.0)
        return self._admission.wait_s(value, self._queue) + there_s

    def enter(
        self,
        prompt_ids: list[int],
        sampling: dict[str, Any],
        *,
        stream: bool,
        news: asyncio.Event,
        sender: Sender = ANYBODY,
    ) -> Ticket:
        """Queues a prompt; `news` is set when something comes. Raises ApiError when it is refused."""
        keys = routing.prefix_keys(prompt_ids, sender.tenant)
        value = sender.request(next(self._numbers), len(prompt_ids), sampling.get("max_tokens") or 0, keys)
        self._admission.ask(value, self._queue)
        order = Submit(value.id, 0, prompt_ids, sampling, stream, sender.cache_salt, sender.tenant, sender.tier)
        return self._enter(value, order, news)

    def call(
        self,
        path: str,
        headers: list[tuple[str, str]],
        body: bytes,
        prompt_tokens: int,
        sender: Sender = ANYBODY,
    ) -> Ticket:
        """Queues a request for vLLM's own application. Its tokens are counted when the engine has told them.

        Raises ApiError when it is refused.
        """
        tokens = min(prompt_tokens, self.max_model_len or prompt_tokens)
        value = sender.request(next(self._numbers), tokens, 0, routing.body_keys(body, sender.tenant))
        self._admission.ask(value, self._queue)
        order = Call(value.id, 0, "POST", path, headers, body, tokens, sender.tenant, sender.tier)
        return self._enter(value, order, asyncio.Event())

    def _enter(self, value: routing.Request, order: Submit | Call, news: asyncio.Event) -> Ticket:
        ticket = Ticket(value, order, news, open_choices=choices(order))
        self._admission.opened(value)
        self.shares.came(ticket)
        self._wait(ticket)
        self._dispatch_soon()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """The reader is gone: the request ends wherever it is."""
        if self._waiting.pop(ticket.value.id, None) is not None:
            self._queue.remove(ticket.value.id)
            self._admission.left(ticket.value)
        self._stop(ticket)
        if not ticket.gone:
            self._admission.closed(ticket.value)
        ticket.gone = True
        ticket.news.set()

    def took(self, ticket: Ticket, size_bytes: int) -> None:
        """So much of a call's answer went to its client: an engine that waits for that may go on."""
        ticket.untold_bytes += size_bytes
        if ticket.untold_bytes < TELL_BYTES or (replica := self._runs_on(ticket)) is None:
            return
        if replica.link is not None:
            replica.link.say(Took(ticket.value.id, ticket.untold_bytes))
        ticket.untold_bytes = 0

    def join(self, replica: Replica, connect: Callable[..., RouterEnd]) -> None:
        """Links up with a replica that described itself."""
        self._seen.add(replica)
        self.max_model_len = replica.facts["max_model_len"]
        replica.link = connect(
            on_frame=lambda frame: self._hear(replica, frame),
            on_lost=lambda reason: self._lose(replica, reason),
        )
        self._seen.announce_to(replica)

    def give_up(self, reason: str) -> None:
        """Fails what waits, if no replica is left that could take it."""
        if self.ready():
            return
        for ticket in list(self._waiting.values()):
            self._fail_waiting(ticket, 503, reason)

    def close(self) -> None:
        """Ends every link."""
        for replica in self.replicas.values():
            if replica.link is not None:
                replica.link.close()

    def _stop(self, ticket: Ticket) -> None:
        """Ends a request in the engine, if it runs there."""
        if (replica := self._runs_on(ticket)) is None:
            return
        del replica.tickets[ticket.value.id]
        replica.left[ticket.value.id] = ticket
        if replica.link is not None:
            replica.link.say(Cancel(ticket.value.id))

    def _runs_on(self, ticket: Ticket) -> Replica | None:
        """The replica that has not ended it yet."""
        replica = self.replicas.get(ticket.replica or "")
        return replica if replica is not None and ticket.value.id in replica.tickets else None

    def _wait(self, ticket: Ticket) -> None:
        self._waiting[ticket.value.id] = ticket
        self._queue.add(ticket.value)
        self._admission.waits(ticket.value)

    def _fail_waiting(self, ticket: Ticket, status: int, reason: str) -> None:
        del self._waiting[ticket.value.id]
        self._queue.remove(ticket.value.id)
        self._admission.left(ticket.value)
        ticket.fail(Failure(ticket.value.id, ticket.attempt, status, reason))

    def _dispatch_soon(self) -> None:
        if not self._dispatch_due:
            self._dispatch_due = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._dispatch_due = False
        if self._waiting:
            routes, prefixes, now_s = self._seen.routes(), self._seen.prefixes, monotonic()
            turn = routing.batch(self._queue, routes, prefixes, now_s=now_s, random=self._random, ttft_s=self._ttft_s)
            for placement in turn.placed:
                ticket = self._waiting.pop(placement.request.id)
                self._admission.left(ticket.value)
                self.shares.left(ticket, now_s)
                self.replicas[placement.replica].send(ticket, placement.read_tokens)
            for value in turn.late:
                self._fail_waiting(self._waiting[value.id], 504, "The deadline passed while the request was waiting.")
        self._seen.announce(self._queue)

    def _hear(self, replica: Replica, frame: EngineFrame) -> None:
        self._seen.hear(replica, frame.load)
        for tenant, tokens in frame.load.served:
            self._queue.counters.charge(tenant, tokens)
        for spent in frame.spent:  # before the ends that they belong to
            self._take_spent(replica, spent)
        for delta in frame.deltas:
            ticket = replica.tickets.get(delta.request)
            if ticket is not None and ticket.attempt == delta.attempt:
                self._take_delta(replica, ticket, delta)
        for part in frame.parts:
            self._take_in(replica, part)
        for failure in frame.failures:
            self._take_failure(replica, failure)
        if self._waiting:
            self._dispatch_soon()

    def _take_delta(self, replica: Replica, ticket: Ticket, delta: Delta) -> None:
        self.shares.made(ticket, len(delta.token_ids))
        if predicted_tokens := ticket.predicted_tokens:
            ticket.predicted_tokens = 0
            self._seen.prefixes.told(replica.id, predicted_tokens=predicted_tokens, cached_tokens=delta.cached_tokens)
        ended = ticket.put(delta)
        if ended or ticket is replica.trial:
            self._judge(replica, routing.succeeded)
        if ended:
            del replica.tickets[delta.request]

    def _take_failure(self, replica: Replica, failure: Failure) -> None:
        self._judge(replica, routing.failed if failure.status >= 500 else routing.succeeded)
        replica.left.pop(failure.request, None)
        if (ticket := replica.tickets.pop(failure.request, None)) is not None:
            ticket.fail(failure)

    def _take_spent(self, replica: Replica, spent: Spent) -> None:
        if (ticket := replica.tickets.get(spent.request)) is not None:
            ticket.used.gpu_s += spent.gpu_s
        elif (ticket := replica.left.get(spent.request)) is not None:
            ticket.used.gpu_s += spent.gpu_s
            if isinstance(ticket.order, Submit):  # of a call one more part comes
                del replica.left[spent.request]
            ticket.settle()

    def _take_in(self, replica: Replica, part: Part) -> None:
        """Counts a part's tokens, of a call whose client left too, and gives it to its reader."""
        ticket, left = replica.tickets.get(part.request), replica.left.get(part.request)
        self.shares.told(ticket or left, part)
        if left is not None and not part.more:
            del replica.left[part.request]
            left.settle()
        if part.status:
            self._judge(replica, routing.failed if part.status >= 500 else routing.succeeded)
        if ticket is None or ticket.attempt != part.attempt:
            return
        if ticket.put_part(part):
            del replica.tickets[part.request]

    def _judge(self, replica: Replica, event: Callable[[routing.Health, float], routing.Health]) -> None:
        if replica.judge(event):
            self._log(f"{self.model}: replica {replica.id} gets no requests for {replica.health.rest_s:g} s")

    def _lose(self, replica: Replica, reason: str) -> None:
        self._seen.remove(replica)
        self._log(f"{self.model}: replica {replica.id} {reason}; {len(replica.tickets)} requests were on it")
        for ticket in replica.tickets.values():
            ticket.losses += ticket.sent_as <= replica.load.received
            if self._retry(ticket, reason):
                self.shares.give_back(ticket)
                self._wait(ticket)
        replica.tickets = {}
        self._dispatch_soon()

    def _retry(self, ticket: Ticket, reason: str) -> bool:
        """Makes a ticket of a lost replica ready for another one, if its reader can't tell."""
        if ticket.losses <= self._most_continuations and ticket.go_on():
            self.continuations += 1
        elif ticket.losses <= RETRIES and not ticket.taken:
            ticket.begin_again()
            self.retries += 1
        else:
            message = f"The replica that ran this request was lost ({reason})."
            ticket.fail(Failure(ticket.value.id, ticket.attempt, 503, message))
            return False
        return True
