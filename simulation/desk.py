"""Where do requests wait in a simulated fleet, and which replica gets which? By `routing`, as in a router."""

from collections.abc import Iterable

import routing
from simulation.decodes import Sequence
from simulation.replica import Replica
from simulation.setup import Setup

STEPS_AHEAD = 2
"""Prefill steps' worth of prompt tokens that an engine takes in advance, as `deployments` grants them."""


class Desk:
    """The queue of one router."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._most_tokens = STEPS_AHEAD * setup.settings.batched_tokens
        self._waiting: dict[int, tuple[routing.Request, Sequence]] = {}
        self.tokens = 0
        """Of prompts that wait."""

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, sequence: Sequence) -> bool:
        """Whether it was let in."""
        request = routing.Request(
            id=sequence.number,
            prompt_tokens=sequence.prompt_tokens,
            max_output_tokens=sequence.output_tokens,
            arrived_s=sequence.arrival_s,
            prefix=0,
        )
        refusal = routing.admit(
            request,
            queued_requests=len(self._waiting),
            queued_tokens=self.tokens,
            drain_tokens_per_s=0.0,
            max_queued_requests=self._setup.max_queued_requests,
        )
        if refusal is None:
            self._waiting[request.id] = request, sequence
            self.tokens += request.prompt_tokens
        return refusal is None

    def again(self, sequences: Iterable[Sequence]) -> None:
        """What a lost replica had goes before all others."""
        later, self._waiting = self._waiting, {}
        for sequence in sequences:
            self.enter(sequence)
        self._waiting |= later

    def dispatch(self, replicas: list[Replica]) -> list[tuple[Sequence, Replica]]:
        """Who leaves now, and for where."""
        if not self._waiting:
            return []
        by_id = {replica.id: replica for replica in replicas}
        requests = [request for request, _ in self._waiting.values()]
        placed = routing.dispatch(requests, [self._value(replica) for replica in replicas])
        found = []
        for request, replica_id in placed:
            self.tokens -= request.prompt_tokens
            found.append((self._waiting.pop(request.id)[1], by_id[replica_id]))
        return found

    def _value(self, replica: Replica) -> routing.Replica:
        engine, waiting_tokens = replica.engine, replica.engine.waiting_tokens
        return routing.Replica(
            id=replica.id,
            slots=max(0, self._setup.settings.max_sequences - len(replica.held)),
            tokens=max(0, self._most_tokens - waiting_tokens),
            queued_tokens=waiting_tokens,
            running=engine.running,
            prefill_tokens_per_s=0.0,
            draining=False,
        )
