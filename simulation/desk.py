"""Where do requests wait in a simulated fleet, and which replica gets which? By `routing`, as in a router."""

from collections.abc import Iterable
from random import Random

import routing
from simulation.decodes import Sequence
from simulation.replica import Replica
from simulation.setup import Setup


class Desk:
    """The queue of one router."""

    def __init__(self, setup: Setup, *, prefix_tokens: int, ttft_s: float, seed: int) -> None:
        """`prefix_tokens` are those of a block of the sequences' prefixes, `ttft_s` the target for first tokens."""
        self._setup, self._prefix_tokens, self._ttft_s = setup, prefix_tokens, ttft_s
        self._most_tokens = routing.STEPS_AHEAD * setup.settings.batched_tokens
        self._random = Random(seed)
        self._sequences: dict[int, Sequence] = {}
        self._queue = routing.Queue()
        self._gate = routing.Gate(setup.max_queued_requests)
        self._prefixes = routing.Prefixes(block_tokens=prefix_tokens)
        self._routes: dict[str, routing.Replica] = {}

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def tokens(self) -> int:
        """Of prompts that wait."""
        return self._queue.tokens

    def enter(self, sequence: Sequence) -> bool:
        """Whether it was let in."""
        request = self._request(sequence)
        refusal = routing.admit(request, queue=self._queue, gate=self._gate, now_s=sequence.arrival_s)
        if refusal is None:
            self._wait(request, sequence)
        return refusal is None

    def again(self, sequences: Iterable[Sequence]) -> None:
        """What a lost replica had waits again."""
        for sequence in sequences:
            self._wait(self._request(sequence), sequence)

    def dispatch(self, replicas: list[Replica], now_s: float) -> list[tuple[Sequence, Replica]]:
        """Who leaves now, and for where."""
        first = self._queue.first()
        if first is None:
            return []
        by_id = {replica.id: replica for replica in replicas}
        for gone in self._routes.keys() - by_id.keys():
            del self._routes[gone]
            self._prefixes.forget(gone)
        for replica in replicas:
            self._look(replica, first.prompt_tokens)
        turn = routing.batch(
            self._queue, self._routes, self._prefixes, now_s=now_s, random=self._random, ttft_s=self._ttft_s
        )
        for one in turn.placed:
            self._gate.drain.leave(now_s, one.request.prompt_tokens)
        return [(self._sequences.pop(one.request.id), by_id[one.replica]) for one in turn.placed]

    def _request(self, sequence: Sequence) -> routing.Request:
        # The last token of a prompt is always read, hence no block that ends with it.
        blocks = (sequence.prompt_tokens - 1) // self._prefix_tokens
        return routing.Request(
            id=sequence.number,
            prompt_tokens=sequence.prompt_tokens,
            max_output_tokens=sequence.output_tokens,
            arrived_s=sequence.arrival_s,
            key=sequence.number,
            blocks=sequence.prefix[:blocks],
        )

    def _wait(self, request: routing.Request, sequence: Sequence) -> None:
        self._sequences[request.id] = sequence
        self._queue.add(request)
        self._gate.drain.enter(sequence.arrival_s)

    def _look(self, replica: Replica, head_tokens: int) -> None:
        """What a frame of it would tell."""
        route = self._routes.get(replica.id)
        settings = self._setup.settings
        if route is None:
            route = self._routes[replica.id] = routing.Replica(id=replica.id, most_running=settings.max_sequences)
            self._prefixes.join(replica.id, self._setup.kv_blocks * settings.block_tokens)
        waiting_tokens = replica.engine.waiting_tokens
        room = max(0, self._most_tokens - waiting_tokens)
        route.hear(
            slots=max(0, settings.max_sequences - len(replica.held)),
            tokens=head_tokens if head_tokens > self._most_tokens and 2 * room >= self._most_tokens else room,
            queued_tokens=waiting_tokens,
            running=replica.engine.running,
        )
