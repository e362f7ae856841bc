"""Where do requests wait in a simulated fleet, and which replica gets which? By `routing`, as in a router."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from statistics import median

import routing
from cluster.step_work import Chunk
from simulation.decodes import Sequence
from simulation.replica import Replica
from simulation.setup import Setup

PACE_S = 1.0
"""Between two comparisons of what replicas' steps took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Room:
    """What an engine takes in advance, by seconds of its steps: that each prompt token and each sequence adds, and of
    one with a single sequence."""

    step_tokens: int
    prompt_token_s: float
    alone_s: float
    sequence_s: float

    def tokens(self, running: int) -> int:
        """While so many sequences run."""
        own_s = self.alone_s + self.sequence_s * max(0, running - 1)
        return routing.room_tokens(self.step_tokens, prompt_token_s=self.prompt_token_s, own_s=own_s)


def as_it_is(request: routing.Request) -> routing.Request:
    """Of the one tenant, as urgent as can be, without a deadline."""
    return request


class Desk:
    """The queue of one router."""

    def __init__(
        self,
        setup: Setup,
        *,
        prefix_tokens: int,
        ttft_s: float,
        seed: int,
        asked: Callable[[routing.Request], routing.Request] = as_it_is,
    ) -> None:
        """`prefix_tokens` are those of a block of the sequences' prefixes, `ttft_s` the target for first tokens;
        `asked` adds to a request what the trace does not tell: its tenant, tier or deadline.
        """
        self._setup, self._ttft_s, self._asked = setup, ttft_s, asked
        # A router remembers no shorter blocks.
        self._every = max(1, routing.BLOCK_TOKENS // prefix_tokens)
        self._rooms: dict[str, _Room] = {}
        self._random = Random(seed)
        self._sequences: dict[int, Sequence] = {}
        self._queue = routing.Queue()
        self._gates = routing.TierGates(setup.max_queued_requests)
        self._prefixes = routing.Prefixes(block_tokens=self._every * prefix_tokens)
        self._routes: dict[str, routing.Replica] = {}
        self._known: list[Replica] = []
        self._by_id: dict[str, Replica] = {}
        self._predicted: list[tuple[Sequence, str, int]] = []
        self._compared_s = -PACE_S

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def tokens(self) -> int:
        """Of prompts that wait."""
        return self._queue.tokens

    def enter(self, sequence: Sequence) -> bool:
        """Whether it was let in."""
        request = self._request(sequence)
        refusal = routing.admit(request, queue=self._queue, gates=self._gates, now_s=sequence.arrival_s)
        if refusal is None:
            self._wait(request, sequence)
        return refusal is None

    def again(self, sequences: Iterable[Sequence]) -> None:
        """What a lost replica had waits again."""
        for sequence in sequences:
            self._wait(self._request(sequence), sequence)

    def dispatch(self, replicas: list[Replica], now_s: float) -> list[tuple[Sequence, Replica | None]]:
        """Who leaves now, and for where; nowhere where the deadline has passed."""
        first = self._queue.first()
        if first is None:
            return []
        self._see(replicas, first.prompt_tokens, now_s)
        turn = routing.batch(
            self._queue, self._routes, self._prefixes, now_s=now_s, random=self._random, ttft_s=self._ttft_s
        )
        leaving: list[tuple[Sequence, Replica | None]] = [(self._sequences.pop(one.id), None) for one in turn.late]
        for one in turn.placed:
            sequence = self._sequences.pop(one.request.id)
            sequence.read_tokens = one.read_tokens
            if cached_tokens := sequence.prompt_tokens - one.read_tokens:
                self._predicted.append((sequence, one.replica, cached_tokens))
            leaving.append((sequence, self._by_id[one.replica]))
        for one in (*turn.late, *(placed.request for placed in turn.placed)):
            self._gates.leave(one.tier, now_s, one.prompt_tokens)
        return leaving

    def wait_s(self, replicas: list[Replica], now_s: float) -> float:
        """Predicted seconds until a prompt that came now would begin to be read; 0: nothing is known."""
        first = self._queue.first()
        self._see(replicas, first.prompt_tokens if first is not None else 0, now_s)
        there_s = [route.begun_s + route.token_s * route.work_tokens for route in self._routes.values()]
        nobody = self._asked(routing.Request(id=-1, prompt_tokens=0, max_output_tokens=0, arrived_s=now_s))
        queued_s = routing.wait_s(nobody, queue=self._queue, drain=self._gates.drain, now_s=now_s)
        return queued_s + min(there_s, default=0.0)

    def _see(self, replicas: list[Replica], head_tokens: int, now_s: float) -> None:
        """What the frames of all of them would tell."""
        if replicas != self._known:
            self._meet(replicas)
        for replica in replicas:
            self._look(replica, head_tokens)
        self._hear(now_s)
        if now_s - self._compared_s >= PACE_S:
            self._compared_s = now_s
            self._compare(replicas)

    def _request(self, sequence: Sequence) -> routing.Request:
        # The last token of a prompt is always read, hence no block that ends with it.
        blocks = (sequence.prompt_tokens - 1) // self._prefixes.block_tokens
        return self._asked(
            routing.Request(
                id=sequence.number,
                prompt_tokens=sequence.prompt_tokens,
                max_output_tokens=sequence.output_tokens,
                arrived_s=sequence.arrival_s,
                key=sequence.number,
                blocks=sequence.prefix[self._every - 1 :: self._every][:blocks],
            )
        )

    def _wait(self, request: routing.Request, sequence: Sequence) -> None:
        self._sequences[request.id] = sequence
        self._queue.add(request)
        self._gates.enter(request.tier, sequence.arrival_s)

    def _meet(self, replicas: list[Replica]) -> None:
        """Others came or went."""
        self._known, self._by_id = list(replicas), {replica.id: replica for replica in replicas}
        for gone in self._routes.keys() - self._by_id.keys():
            del self._routes[gone], self._rooms[gone]
            self._prefixes.forget(gone)
        settings = self._setup.settings
        for new in [name for name in self._by_id if name not in self._routes]:
            self._routes[new] = routing.Replica(id=new, most_running=settings.max_sequences)
            self._prefixes.join(new, self._setup.kv_blocks * settings.block_tokens)
            self._rooms[new] = self._room(int(new))

    def _look(self, replica: Replica, head_tokens: int) -> None:
        """What a frame of it would tell."""
        route, settings, engine = self._routes[replica.id], self._setup.settings, replica.engine
        waiting_tokens = engine.schedule.waiting_tokens
        room = self._rooms[replica.id].tokens(engine.schedule.running)
        tokens = routing.credit_tokens(
            room,
            unread_tokens=waiting_tokens,
            kv_tokens=self._setup.kv_blocks * settings.block_tokens,
            kv_free_tokens=engine.blocks.free * settings.block_tokens,
        )
        if head_tokens > room:
            tokens = head_tokens if 2 * tokens >= room else 0
        route.hear(
            slots=max(0, settings.max_sequences - len(replica.held)),
            tokens=tokens,
            queued_tokens=waiting_tokens,
            running=engine.schedule.running,
        )

    def _room(self, number: int) -> _Room:
        """By what the engine would measure of its steps."""
        tokens = self._setup.settings.batched_tokens
        step, one = self._setup.step_of(number), Chunk(new_tokens=1, context_tokens=0)
        alone_s = step([one])
        return _Room(
            step_tokens=tokens,
            prompt_token_s=(step([Chunk(new_tokens=tokens, context_tokens=0)]) - alone_s) / tokens,
            alone_s=alone_s,
            sequence_s=step([one, one]) - alone_s,
        )

    def _hear(self, now_s: float) -> None:
        """First tokens that came tell what their prompts had in the caches."""
        waiting = []
        for sequence, replica, tokens in self._predicted:
            if sequence.first_token_s <= now_s:
                self._prefixes.told(replica, predicted_tokens=tokens, cached_tokens=sequence.found_tokens)
            elif replica in self._routes:
                waiting.append((sequence, replica, tokens))
        self._predicted = waiting

    def _compare(self, replicas: list[Replica]) -> None:
        """Learns how fast they are beside each other; one that has measured nothing counts as usual."""
        measured = {
            one.id: routing.Measured(tokens_per_s=one.pace.reading.per_s(), step_tokens=one.pace.reading.step_tokens())
            for one in replicas
            if one.pace.reading.measured
        }
        seconds = routing.token_seconds(measured)
        usual_s = median(seconds.values()) if seconds else routing.UNKNOWN_TOKEN_S
        for one in replicas:
            route = self._routes[one.id]
            route.token_s = seconds.get(one.id, usual_s)
            route.step_s = measured[one.id].step_s if one.id in measured else 0.0
