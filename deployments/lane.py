"""Where is each request of one model: waiting here, or running on which replica, and what came back?

The lane decides nothing itself: `routing` says who may come in, who is next and which replica.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

import routing
from deployments.fleet import RouterSettings
from deployments.frames import WINDOW_BYTES, Call, Cancel, Delta, EngineFrame, Failure, Part, Submit, Took
from deployments.link import RouterEnd
from deployments.openai_wire import ApiError
from deployments.replica import Replica, as_routed
from deployments.ticket import Ticket, choices

PREFIX_TOKENS = 128
"""Prompts that share so many first tokens are sent together: one KV block on CPU, eight on GPU."""
DEPARTURES = 256
"""Departures from the queue that are remembered for its drain rate."""
RETRIES = 2
"""How often a request of which its reader has nothing begins again when its replica is lost, before it fails."""
LOST = 64
"""Lost replicas whose health is remembered."""
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
    ) -> None:
        self.model, self._log, self._most_continuations = model, log, continuations
        self._max_queued = max_queued_requests
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Ticket] = {}
        self._queued_tokens = 0
        self._departures: deque[routing.Departure] = deque(maxlen=DEPARTURES)
        self.replicas: dict[str, Replica] = {}
        self._lost_health: dict[str, routing.Health] = {}
        self._dispatch_due = False
        self.prompt_tokens = self.output_tokens = self.retries = self.continuations = 0
        self.max_model_len: int | None = None

    @property
    def queued_requests(self) -> int:
        return len(self._waiting)

    @property
    def queued_tokens(self) -> int:
        return self._queued_tokens

    def open_requests(self) -> int:
        """Requests waiting here or running on a replica for us."""
        return len(self._waiting) + sum(len(replica.tickets) for replica in self.replicas.values())

    def ready(self) -> bool:
        """Whether a replica would take a request now."""
        return any(replica.heard and not replica.load.draining for replica in self.replicas.values())

    def enter(self, prompt_ids: list[int], sampling: dict[str, Any], *, stream: bool, news: asyncio.Event) -> Ticket:
        """Queues a prompt; `news` is set when something comes. Raises ApiError when it is refused."""
        value = routing.Request(
            id=next(self._numbers),
            prompt_tokens=len(prompt_ids),
            max_output_tokens=sampling.get("max_tokens") or 0,
            arrived_s=monotonic(),
            prefix=hash(tuple(prompt_ids[:PREFIX_TOKENS])) if len(prompt_ids) >= PREFIX_TOKENS else 0,
        )
        self._admit(value)
        self.prompt_tokens += value.prompt_tokens
        return self._queue(value, Submit(value.id, 0, prompt_ids, sampling, stream, cache_salt=None), news)

    def call(self, path: str, headers: list[tuple[str, str]], body: bytes, prompt_tokens: int) -> Ticket:
        """Queues a request for vLLM's own application. Its tokens are counted when the engine has told them.

        Raises ApiError when it is refused.
        """
        number = next(self._numbers)
        tokens = min(prompt_tokens, self.max_model_len or prompt_tokens)
        value = routing.Request(id=number, prompt_tokens=tokens, max_output_tokens=0, arrived_s=monotonic(), prefix=0)
        self._admit(value)
        return self._queue(value, Call(number, 0, "POST", path, headers, body, tokens), asyncio.Event())

    def _admit(self, value: routing.Request) -> None:
        refusal = routing.admit(
            value,
            queued_requests=self.queued_requests,
            queued_tokens=self._queued_tokens,
            drain_tokens_per_s=routing.drain_tokens_per_s(self._departures, value.arrived_s),
            max_queued_requests=self._max_queued,
        )
        if refusal is not None:
            raise ApiError(
                refusal.status,
                refusal.reason,
                kind="server_error",
                code="overloaded",
                retry_after_s=refusal.retry_after_s,
            )

    def _queue(self, value: routing.Request, order: Submit | Call, news: asyncio.Event) -> Ticket:
        ticket = Ticket(value, order, news, open_choices=choices(order))
        self._wait(ticket)
        self._dispatch_soon()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """The reader is gone: the request ends wherever it is."""
        number = ticket.value.id
        if self._waiting.pop(number, None) is not None:
            self._queued_tokens -= ticket.value.prompt_tokens
        self._stop(ticket)
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
        self.replicas[replica.id] = replica
        replica.health = self._lost_health.pop(replica.id, replica.health)
        self.max_model_len = replica.facts["max_model_len"]
        replica.link = connect(
            on_frame=lambda frame: self._hear(replica, frame),
            on_lost=lambda reason: self._lose(replica, reason),
        )

    def give_up(self, reason: str) -> None:
        """Fails what waits, if no replica is left that could take it."""
        if self.ready():
            return
        for number, ticket in self._waiting.items():
            ticket.fail(Failure(number, ticket.attempt, 503, reason))
        self._waiting, self._queued_tokens = {}, 0

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
        if replica.link is not None:
            replica.link.say(Cancel(ticket.value.id))

    def _runs_on(self, ticket: Ticket) -> Replica | None:
        """The replica that has not ended it yet."""
        replica = self.replicas.get(ticket.replica or "")
        return replica if replica is not None and ticket.value.id in replica.tickets else None

    def _wait(self, ticket: Ticket) -> None:
        self._waiting[ticket.value.id] = ticket
        self._queued_tokens += ticket.value.prompt_tokens

    def _dispatch_soon(self) -> None:
        if not self._dispatch_due:
            self._dispatch_due = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._dispatch_due = False
        values = as_routed(list(self.replicas.values()))
        credit = sum(value.slots for value in values)
        if not self._waiting or not credit:
            return
        waiting = [ticket.value for ticket in self._waiting.values()]
        for value, replica_id in routing.dispatch(waiting, values):
            self._send(self._waiting.pop(value.id), self.replicas[replica_id])

    def _send(self, ticket: Ticket, replica: Replica) -> None:
        self._queued_tokens -= ticket.value.prompt_tokens
        self._departures.append(routing.Departure(at_s=monotonic(), prompt_tokens=ticket.value.prompt_tokens))
        replica.send(ticket)

    def _hear(self, replica: Replica, frame: EngineFrame) -> None:
        replica.hear(frame.load)
        for delta in frame.deltas:
            self._take(replica, delta)
        for part in frame.parts:
            self._take_in(replica, part)
        for failure in frame.failures:
            self._judge(replica, routing.failed if failure.status >= 500 else routing.succeeded)
            if (ticket := replica.tickets.pop(failure.request, None)) is not None:
                ticket.fail(failure)
        if self._waiting:
            self._dispatch_soon()

    def _take(self, replica: Replica, delta: Delta) -> None:
        """Gives a delta to its reader."""
        ticket = replica.tickets.get(delta.request)
        if ticket is None or ticket.attempt != delta.attempt:
            return
        self.output_tokens += len(delta.token_ids)
        ended = ticket.put(delta)
        if ended or ticket is replica.trial:
            self._judge(replica, routing.succeeded)
        if ended:
            del replica.tickets[delta.request]

    def _take_in(self, replica: Replica, part: Part) -> None:
        """Counts a part's tokens, of a call whose client left too, and gives it to its reader."""
        self.prompt_tokens += part.prompt_tokens
        self.output_tokens += part.output_tokens
        if part.status:
            self._judge(replica, routing.failed if part.status >= 500 else routing.succeeded)
        ticket = replica.tickets.get(part.request)
        if ticket is None or ticket.attempt != part.attempt:
            return
        if ticket.put_part(part):
            del replica.tickets[part.request]

    def _judge(self, replica: Replica, event: Callable[[routing.Health, float], routing.Health]) -> None:
        if replica.judge(event):
            self._log(f"{self.model}: replica {replica.id} gets no requests for {replica.health.rest_s:g} s")

    def _lose(self, replica: Replica, reason: str) -> None:
        self.replicas.pop(replica.id, None)
        # It may be found again; most are not.
        self._lost_health[replica.id] = routing.lost(replica.health, monotonic())
        while len(self._lost_health) > LOST:
            del self._lost_health[next(iter(self._lost_health))]
        self._log(f"{self.model}: replica {replica.id} {reason}; {len(replica.tickets)} requests were on it")
        again = [ticket for ticket in replica.tickets.values() if self._retry(ticket, reason)]
        later, self._waiting, self._queued_tokens = self._waiting, {}, 0
        for ticket in [*again, *later.values()]:
            self._wait(ticket)
        replica.tickets = {}
        self._dispatch_soon()

    def _retry(self, ticket: Ticket, reason: str) -> bool:
        """Makes a ticket of a lost replica ready for another one, if its reader can't tell."""
        if ticket.attempt < self._most_continuations and ticket.go_on():
            self.continuations += 1
        elif ticket.attempt < RETRIES and not ticket.taken:
            ticket.begin_again()
            self.retries += 1
        else:
            message = f"The replica that ran this request was lost ({reason})."
            ticket.fail(Failure(ticket.value.id, ticket.attempt, 503, message))
            return False
        return True
