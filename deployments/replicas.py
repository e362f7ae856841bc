"""What does a router know of the replicas of one model, beside each other: their pace, caches and health?"""

from statistics import median
from time import monotonic

import routing
from deployments.frames import Load, Waiting
from deployments.replica import Replica

PACE_S = 1.0
"""Seconds between two comparisons of what their steps took."""
LOST = 64
"""Lost replicas whose health is remembered."""


class Replicas:
    """The replicas of one model, in one router."""

    def __init__(self) -> None:
        self.by_id: dict[str, Replica] = {}
        self.prefixes = routing.Prefixes()
        self._lost_health: dict[str, routing.Health] = {}
        self._compared_s = 0.0
        self._announced: Waiting | None = None

    def add(self, replica: Replica) -> None:
        """A replica described itself. It may have been lost before."""
        self.by_id[replica.id] = replica
        replica.health = self._lost_health.pop(replica.id, replica.health)

    def remove(self, replica: Replica) -> None:
        """A replica is lost. It may be found again; most are not."""
        self.by_id.pop(replica.id, None)
        self.prefixes.forget(replica.id)
        self._lost_health[replica.id] = routing.lost(replica.health, monotonic())
        while len(self._lost_health) > LOST:
            del self._lost_health[next(iter(self._lost_health))]

    def hear(self, replica: Replica, load: Load) -> None:
        """A frame of a replica came."""
        now_s = monotonic()
        if not replica.heard:
            self._compared_s = now_s - PACE_S
            if replica.caches:
                self.prefixes.join(replica.id, load.kv_tokens)
        replica.hear(load)
        if now_s - self._compared_s >= PACE_S:
            self._compared_s = now_s
            self._compare()

    def routes(self) -> dict[str, routing.Replica]:
        """As routing sees them; of those that failed too often, what their breakers let through."""
        seen = {name: replica.route for name, replica in self.by_id.items()}
        if all(replica.health.until_s is None for replica in self.by_id.values()):
            return seen
        serving = {name: replica.health for name, replica in self.by_id.items() if not replica.route.draining}
        for name, most in routing.rested(serving, monotonic()).items():
            if (left := most - self.by_id[name].on_trial()) > 0:
                seen[name].slots = min(seen[name].slots, left)
            else:
                del seen[name]
        return seen

    def announce(self, queue: routing.Queue) -> None:
        """Tells the engines what waits: at once where they could not know that it is so much or so urgent."""
        first, told = queue.first(), self._announced
        if first is None:
            if told is not None:
                self._tell(None, now=False)
            return
        weight, tokens = queue.counters.weight(first.tenant), first.prompt_tokens
        waiting = Waiting(first.tenant, weight, first.tier, tokens, queue.tokens, len(queue))
        if told is None:
            self._tell(waiting, now=True)
        elif waiting != told:
            more = waiting.waiting_tokens > 2 * told.waiting_tokens
            self._tell(waiting, now=more or first.tier < told.tier or tokens > told.tokens)

    def announce_to(self, replica: Replica) -> None:
        """Tells a replica that has just come what the others were told."""
        if replica.link is not None:
            replica.link.announce(self._announced, now=False)

    def _tell(self, waiting: Waiting | None, *, now: bool) -> None:
        self._announced = waiting
        for replica in self.by_id.values():
            if replica.link is not None:
                replica.link.announce(waiting, now=now)

    def _compare(self) -> None:
        """Learns how fast they are beside each other; one that has measured nothing counts as usual."""
        loads = [(name, one.load) for name, one in self.by_id.items() if one.load.prefill_step_tokens > 0]
        measured = {
            name: routing.Measured(tokens_per_s=load.prefill_tokens_per_s, step_tokens=load.prefill_step_tokens)
            for name, load in loads
        }
        seconds = routing.token_seconds(measured)
        usual_s = median(seconds.values()) if seconds else routing.UNKNOWN_TOKEN_S
        for name, replica in self.by_id.items():
            replica.route.token_s = seconds.get(name, usual_s)
            replica.route.step_s = measured[name].step_s if name in measured else 0.0
