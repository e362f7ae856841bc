"""What does a router know of one engine replica, and what may it send there now?"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

import routing
from deployments.frames import Load
from deployments.link import RouterEnd
from deployments.ticket import Ticket


@dataclass(eq=False, slots=True)
class Replica:
    """One engine replica, seen from here."""

    id: str
    facts: dict[str, Any]
    link: RouterEnd | None = None
    load: Load = field(default_factory=lambda: Load())
    heard: bool = False
    tickets: dict[int, Ticket] = field(default_factory=dict)
    sent: int = 0
    on_the_way: deque[int] = field(default_factory=deque)
    """Prompt tokens of each Submit and Call that the last load does not count yet."""
    health: routing.Health = field(default_factory=routing.Health)
    trial: Ticket | None = None
    """The last request that was sent to see whether it is well again."""

    def value(self) -> routing.Replica:
        flying_tokens = sum(self.on_the_way)
        return routing.Replica(
            id=self.id,
            slots=max(0, self.load.credit_requests - len(self.on_the_way)),
            tokens=max(0, self.load.credit_tokens - flying_tokens),
            queued_tokens=self.load.prefilling_tokens + flying_tokens,
            running=self.load.running_requests + self.load.waiting_requests + len(self.on_the_way),
            prefill_tokens_per_s=self.load.prefill_tokens_per_s,
            draining=self.load.draining or not self.heard,
        )

    def hear(self, load: Load) -> None:
        self.load, self.heard = load, True
        while len(self.on_the_way) > self.sent - load.received:
            self.on_the_way.popleft()

    def send(self, ticket: Ticket) -> None:
        """Hands a request over to the link."""
        ticket.replica = self.id
        self.tickets[ticket.value.id] = ticket
        if self.health.until_s is not None:
            self.trial = ticket
        self.sent += 1
        self.on_the_way.append(ticket.value.prompt_tokens)
        assert self.link is not None
        self.link.say(ticket.order)

    def judge(self, event: Callable[[routing.Health, float], routing.Health]) -> bool:
        """Remembers that it answered, failed or was lost; True when a rest begins with that."""
        before, self.health = self.health, event(self.health, monotonic())
        return self.health.until_s not in (None, before.until_s)

    def on_trial(self) -> bool:
        """A request is there that shows whether it is well."""
        return self.trial is not None and self.tickets.get(self.trial.value.id) is self.trial


def as_routed(replicas: Sequence[Replica]) -> list[routing.Replica]:
    """The replicas as routing sees them; of those that failed too often, what their breakers let through."""
    values = [replica.value() for replica in replicas]
    if all(replica.health.until_s is None for replica in replicas):
        return values
    serving = {value.id: replica.health for value, replica in zip(values, replicas, strict=True) if not value.draining}
    most = routing.rested(serving, monotonic())
    return [
        replace(value, slots=min(value.slots, most[value.id] - replica.on_trial())) if value.id in most else value
        for value, replica in zip(values, replicas, strict=True)
    ]
