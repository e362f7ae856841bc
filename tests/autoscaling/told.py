"""What tests of decisions tell of a fleet: loads, traffic, stories over time, and all of them by chance."""

from dataclasses import dataclass, field

from hypothesis import strategies as st

from autoscaling import Decision, Fleet, Memory, ReplicaLoad, StepCosts, Targets, Traffic, decide

TARGETS = Targets(target_utilization=0.7, hold_s=60.0)
COSTS = StepCosts(step_s=0.01, sequence_s=0.0005, prompt_token_s=0.0001)
"""At a target of 50 ms a token and 0.7, a replica takes 0.7 seconds of work a second: 7,000 prompt tokens/s."""


def load(replica_id: str, busy: int = 0, *, waiting: int = 0, slots: int = 10, **known) -> ReplicaLoad:
    return ReplicaLoad(
        id=replica_id,
        running_requests=busy,
        waiting_requests=waiting,
        waiting_tokens=100 * waiting,
        slots=slots,
        **known,
    )


def traffic(requests_per_s: float, prompt_tokens: int = 500, output_tokens: int = 100) -> Traffic:
    """Even arrivals, for a minute and longer."""
    return Traffic(
        short_requests=15 * requests_per_s,
        short_tokens=15 * requests_per_s * prompt_tokens,
        long_requests=60 * requests_per_s,
        long_tokens=60 * requests_per_s * prompt_tokens,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
    )


@dataclass
class Story:
    """A model under load that gets exactly the replicas that were decided, after `startup_s`."""

    min_replicas: int = 0
    max_replicas: int = 20
    replicas: int = 0
    slots: int = 10
    kv_tokens: int = 0
    costs: StepCosts | None = None
    startup_s: float = 0.0
    memory: Memory = field(default_factory=Memory)
    ready_s: list[float] = field(default_factory=list)

    def at(
        self,
        now_s: float,
        *,
        queued: int = 0,
        busy: int = 0,
        silent: int = 0,
        comes: Traffic = Traffic(),  # noqa: B008
    ) -> Decision:
        """`busy` requests run on each replica that is not silent; a queued request has 100 tokens."""
        running = self.replicas - sum(ready_s > now_s for ready_s in self.ready_s)
        self.ready_s = [ready_s for ready_s in self.ready_s if ready_s > now_s]
        known = {"slots": self.slots, "kv_tokens": self.kv_tokens, "costs": self.costs}
        heard = [load(str(number), busy, **known) for number in range(running - silent)]
        fleet = Fleet(
            now_s=now_s,
            replicas=(*heard, *[None] * silent),
            starting=len(self.ready_s),
            queued_requests=queued,
            queued_tokens=100 * queued,
            traffic=comes,
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
        )
        decision, self.memory = decide(fleet, self.memory, TARGETS)
        more = decision.replicas - self.replicas
        self.ready_s = [*self.ready_s, *[now_s + self.startup_s] * more][: max(0, len(self.ready_s) + more)]
        self.replicas = decision.replicas
        return decision


costs = st.none() | st.builds(
    StepCosts,
    step_s=st.floats(1e-4, 0.2),
    sequence_s=st.floats(0, 0.01),
    prompt_token_s=st.floats(0, 0.001),
)


@st.composite
def loads(draw: st.DrawFn) -> Traffic:
    shape = draw(st.tuples(st.floats(1, 5_000), st.floats(0, 5), st.floats(0, 500)))
    short, more = draw(st.integers(0, 500)), draw(st.integers(0, 500))
    judged = draw(st.integers(0, 100))
    return Traffic(
        short_requests=short,
        short_tokens=short * shape[0],
        long_requests=short + more,
        long_tokens=(short + more) * shape[0],
        judged_requests=judged,
        missed_requests=draw(st.integers(0, judged)),
        prompt_tokens=shape[0],
        prompt_spread=shape[1],
        output_tokens=shape[2],
    )


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    slots, known = draw(st.integers(1, 64)), draw(costs)
    shapes = st.none() | st.tuples(st.integers(0, 80), st.integers(0, 80), st.integers(0, 5_000))
    replicas = [
        shape
        and load(
            str(number), shape[0], waiting=shape[1], slots=slots, costs=known, kv_tokens=5_000, kv_used_tokens=shape[2]
        )
        for number, shape in enumerate(draw(st.lists(shapes, max_size=6)))
    ]
    min_replicas = draw(st.integers(0, 4))
    return Fleet(
        now_s=draw(st.floats(0, 200)),
        replicas=tuple(one or None for one in replicas),
        starting=draw(st.integers(0, 3)),
        queued_requests=draw(st.integers(0, 300)),
        queued_tokens=draw(st.integers(0, 30_000)),
        traffic=draw(loads()),
        min_replicas=min_replicas,
        max_replicas=min_replicas + draw(st.integers(0, 8)),
        silent_routers=draw(st.integers(0, 1)),
    )


@st.composite
def memories(draw: st.DrawFn) -> Memory:
    """Only memories that `decide` itself can leave behind."""
    memory = Memory()
    for fleet in sorted(draw(st.lists(fleets(), max_size=4)), key=lambda fleet: fleet.now_s):
        _, memory = decide(fleet, memory, TARGETS)
    return memory
