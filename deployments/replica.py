"""What does a router know of one engine replica?"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
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
    left: dict[int, Ticket] = field(default_factory=dict)
    """What nobody waits for, until the engine has told what it took."""
    sent: int = 0
    on_the_way: deque[int] = field(default_factory=deque)
    """Prompt tokens to read of each Submit and Call that the last load does not count yet."""
    route: routing.Replica = field(init=False)
    """The same for `routing`, kept up to date."""
    health: routing.Health = field(default_factory=routing.Health)
    trial: Ticket | None = None
    """The last request that was sent to see whether it is well again."""

    def __post_init__(self) -> None:
        self.route = routing.Replica(id=self.id, draining=True)

    @property
    def caches(self) -> bool:
        """Whether it keeps prefixes of prompts."""
        return self.facts.get("caches", True)

    def hear(self, load: Load) -> None:
        """A frame came."""
        self.load, self.heard = load, True
        flying = self.on_the_way
        while len(flying) > self.sent - load.received:
            flying.popleft()
        flying_tokens = sum(flying)
        self.route.draining, self.route.most_running = load.draining, max(1, load.slots)
        self.route.hear(
            slots=max(0, load.credit_requests - len(flying)),
            tokens=max(0, load.credit_tokens - flying_tokens),
            queued_tokens=load.prefilling_tokens + flying_tokens,
            running=load.running_requests + load.waiting_requests + len(flying),
        )

    def send(self, ticket: Ticket, read_tokens: int) -> None:
        """Hands a request over to the link; `routing.batch` has counted it in, with so many tokens to read."""
        assert self.link is not None
        ticket.leave_for(self.id, read_tokens)
        self.tickets[ticket.value.id] = ticket
        if self.health.until_s is not None:
            self.trial = ticket
        self.sent += 1
        ticket.sent_as = self.sent
        self.on_the_way.append(read_tokens)
        self.link.say(ticket.order)

    def judge(self, event: Callable[[routing.Health, float], routing.Health]) -> bool:
        """Remembers that it answered, failed or was lost; True when a rest begins with that."""
        before, self.health = self.health, event(self.health, monotonic())
        return self.health.until_s not in (None, before.until_s)

    def on_trial(self) -> bool:
        """A request is there that shows whether it is well."""
        return self.trial is not None and self.tickets.get(self.trial.value.id) is self.trial
