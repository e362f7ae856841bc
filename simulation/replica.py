"""What is one replica of a simulated fleet, from when it was asked for to its end?"""

from autoscaling import ReplicaLoad, StepCosts, StepFit
from routing import Rate
from simulation.decodes import Sequence
from simulation.engine import Engine
from simulation.setup import Setup


class Pace:
    """Hears of an engine's steps: what such steps cost in the fleet, and how fast this engine reads prompts."""

    def __init__(self, costs: StepFit) -> None:
        self.reading = Rate()
        self._costs = costs

    def add(self, seconds: float, *, sequences: float, prompt_tokens: float, steps: int) -> None:
        self._costs.add(seconds, sequences=sequences, prompt_tokens=prompt_tokens, steps=steps)
        if prompt_tokens:
            self.reading.add(prompt_tokens, seconds)


class Replica:
    """An engine with a life. Its times are the simulation's."""

    def __init__(
        self, number: int, setup: Setup, engine: Engine, pace: Pace, *, asked_s: float, ready_s: float, fails_s: float
    ) -> None:
        self.id = str(number)
        self.engine = engine
        self.pace = pace
        self.asked_s, self.ready_s, self.fails_s = asked_s, ready_s, fails_s
        self.held: set[Sequence] = set()
        """Sequences that were sent there and have not ended."""
        self._setup = setup
        self._heard_tokens = 0
        self._load: ReplicaLoad | None = None
        self._version = -1

    def add(self, sequence: Sequence, now_s: float) -> list[Sequence]:
        """A request arrives; says who ended before."""
        done = self.engine.advance(now_s)
        self.engine.add(sequence, now_s)
        self.held.add(sequence)
        return done

    def news(self, now_s: float) -> int:
        """Tokens of answers since this was asked last."""
        made = self.engine.made_tokens(now_s)
        news, self._heard_tokens = made - self._heard_tokens, made
        return news

    def load(self, costs: StepCosts | None) -> ReplicaLoad:
        """As a real one reports it."""
        engine = self.engine
        if self._load is None or engine.version != self._version or self._load.costs is not costs:
            self._version = engine.version
            settings, schedule = self._setup.settings, engine.schedule
            prompts = schedule.read_tokens + schedule.found_tokens
            self._load = ReplicaLoad(
                id=self.id,
                running_requests=schedule.running,
                waiting_requests=schedule.waiting,
                slots=settings.max_sequences,
                waiting_tokens=schedule.waiting_tokens,
                kv_tokens=self._setup.kv_blocks * settings.block_tokens,
                kv_used_tokens=(self._setup.kv_blocks - engine.blocks.free) * settings.block_tokens,
                costs=costs,
                computed_share=schedule.read_tokens / prompts if prompts else 1.0,
            )
        return self._load
