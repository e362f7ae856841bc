"""What does it cost a router to let a request in, to choose the next one and its replica? CPU time, nothing else runs.

    python -m benchmarks.routing_turn

One slot becomes free, a request comes, one leaves: over and over, with many waiting. Tokenizing and hashing prompts are
not in it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from statistics import median, quantiles
from time import thread_time_ns

import routing

PROMPTS = (200, 500, 1000, 2000, 8000)
"""Tokens, equally often."""
PREFIXES = 20
"""That a tenant's prompts begin with."""
TURNS = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """How much there is."""

    replicas: int = 64
    waiting: int = 10_000
    tenants: int = 500


@dataclass(slots=True)
class Router:
    """What a router keeps for one model."""

    scene: Scene
    random: Random
    queue: routing.Queue = field(default_factory=routing.Queue)
    gates: routing.TierGates = field(default_factory=lambda: routing.TierGates(1 << 20))
    prefixes: routing.Prefixes = field(default_factory=routing.Prefixes)
    replicas: dict[str, routing.Replica] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number in range(self.scene.replicas):
            name = str(number)
            self.replicas[name] = routing.Replica(id=name, most_running=256)
            self.replicas[name].hear(slots=0, tokens=0, queued_tokens=self._load(4000), running=self._load(100))
            self.prefixes.join(name, 500_000)

    def _load(self, most: int) -> int:
        return self.random.randrange(most)

    def frame(self) -> None:
        """A replica grants one request."""
        replica = self.replicas[str(self._load(self.scene.replicas))]
        replica.hear(slots=1, tokens=16_000, queued_tokens=self._load(4000), running=self._load(100))

    def admit(self, request: routing.Request) -> None:
        """Lets a request in."""
        now_s = request.arrived_s
        if routing.admit(request, queue=self.queue, gates=self.gates, now_s=now_s) is None:
            self.queue.add(request)
            self.gates.enter(request.tier, now_s)

    def turn(self, now_s: float) -> int:
        """Sends what can go; how many went."""
        turn = routing.batch(self.queue, self.replicas, self.prefixes, now_s=now_s, random=self.random, ttft_s=1.0)
        for one in turn.placed:
            self.gates.leave(one.request.tier, now_s, one.request.prompt_tokens)
        return len(turn.placed)


def requests(scene: Scene, random: Random) -> Iterator[routing.Request]:
    """For ever, a thousand in a second."""
    number = 0
    while True:
        number += 1
        tenant, tokens = f"tenant {random.randrange(scene.tenants)}", random.choice(PROMPTS)
        start = random.randrange(PREFIXES)
        yield routing.Request(
            id=number,
            prompt_tokens=tokens,
            max_output_tokens=100,
            arrived_s=number / 1000,
            tenant=tenant,
            tier=random.choice((routing.Tier.INTERACTIVE, routing.Tier.STANDARD, routing.Tier.BATCH)),
            key=number,
            blocks=tuple(hash((tenant, start, block)) for block in range((tokens - 1) // routing.BLOCK_TOKENS)),
        )


def measure(scene: Scene, turns: int = TURNS, seed: int = 1) -> dict[str, float]:
    """Microseconds of CPU for one request let in and one turn, in turns that sent something, and how many those are."""
    random = Random(seed)
    router, source = Router(scene, random), requests(scene, random)
    for _ in range(scene.waiting):
        router.admit(next(source))
    spent_us: list[float] = []
    for request in (next(source) for _ in range(turns)):
        router.frame()
        begun = thread_time_ns()
        router.admit(request)
        sent = router.turn(request.arrived_s)
        took_us = (thread_time_ns() - begun) / 1000
        if sent:
            spent_us.append(took_us)
    return {"p50_us": median(spent_us), "p95_us": quantiles(spent_us, n=20)[-1], "turns": len(spent_us)}


def main() -> None:
    """Prints one line of JSON for each scene."""
    for scene in (Scene(), Scene(replicas=4), Scene(waiting=100, tenants=5)):
        told = {"replicas": scene.replicas, "waiting": scene.waiting, "tenants": scene.tenants} | measure(scene)
        print(json.dumps(told))


if __name__ == "__main__":
    main()
