"""Does a simulated fleet queue as theory says, lose nothing, and pay for what it had?"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from heapq import heapreplace
from math import factorial, inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling import Targets
from cluster.engine_memory import EngineSettings
from cluster.step_work import Chunk
from routing import Request
from simulation.baselines import Wanted
from simulation.decodes import Sequence as Sequence_
from simulation.desk import Desk
from simulation.fleet import simulate
from simulation.outcome import Run, digest, summary
from simulation.policy import Observed, headrace
from simulation.replica import Replica
from simulation.setup import Setup
from simulation.trace import Trace

TARGETS = Targets()
TICK_S = 1e-6
"""A prompt token of the queueing tests: service times are whole numbers of it."""


def trace(at_s: Sequence[float], prompts: Sequence[int], answers: Sequence[int] | int = 1) -> Trace:
    return Trace(
        at_s=np.array(at_s, dtype=float),
        prompt_tokens=np.array(prompts, dtype=np.int32),
        output_tokens=np.broadcast_to(np.array(answers, dtype=np.int32), (len(at_s),)),
    )


def server(**more: Any) -> Setup:
    """An engine that serves one request at a time, for as long as its prompt says."""
    return Setup(
        settings=EngineSettings(max_sequences=1, batched_tokens=1 << 30, context_tokens=1 << 30),
        kv_blocks=1 << 28,
        step=lambda chunks: sum(chunk.count * chunk.new_tokens for chunk in chunks) * TICK_S,
        plans_ahead=False,
        dispatch_s=0.0,
        **more,
    )


def linear(chunks: Sequence[Chunk]) -> float:
    return 0.01 + sum(chunk.count * (0.0005 + 5e-5 * chunk.new_tokens) for chunk in chunks)


def engines(**more: Any) -> Setup:
    return Setup(
        settings=EngineSettings(max_sequences=64, batched_tokens=2048, context_tokens=8192),
        kv_blocks=4096,
        step=linear,
        **more,
    )


def always(replicas: int):
    return lambda seen, memory: (Wanted(replicas=replicas, reason="as ever"), memory)


def queueing(count: int, busy: float, servers: int, *, even: bool, seed: int) -> tuple[list[float], list[int]]:
    """Arrivals by chance, and service of 5 ms in the mean: by chance, or even."""
    source, now_s, at_s, ticks = random.Random(seed), 0.0, [], []
    for _ in range(count):
        now_s += source.expovariate(busy * servers / 0.005)
        at_s.append(now_s)
        ticks.append(5_000 if even else max(1, round(source.expovariate(1 / 0.005) / TICK_S)))
    return at_s, ticks


def waited(at_s: list[float], ticks: list[int], servers: int) -> np.ndarray:
    run = simulate(trace(at_s, ticks), server(begins_with=servers, max_replicas=servers), always(servers), TARGETS)
    return run.first_s - run.trace.at_s - np.array(ticks) * TICK_S


def erlang_wait_s(busy: float, servers: int) -> float:
    """Of M/M/c, in the mean (Erlang 1917)."""
    load = busy * servers
    last = load**servers / factorial(servers) / (1 - busy)
    waits = last / (sum(load**k / factorial(k) for k in range(servers)) + last)
    return waits * 0.005 / (servers * (1 - busy))


@pytest.mark.parametrize(
    ("servers", "even"), [(1, False), (1, True), (3, False), (4, False)], ids=["M/M/1", "M/D/1", "M/M/3", "M/M/4"]
)
def test_every_wait_is_that_of_a_queue_before_so_many_servers(servers: int, even: bool) -> None:
    at_s, ticks = queueing(4_000, 0.8, servers, even=even, seed=servers)
    free_s, expected = [0.0] * servers, []
    for arrival_s, tick in zip(at_s, ticks, strict=True):
        begin_s = max(arrival_s, free_s[0])
        expected.append(begin_s - arrival_s)
        heapreplace(free_s, begin_s + tick * TICK_S)
    assert waited(at_s, ticks, servers) == pytest.approx(np.array(expected), abs=1e-6)


@pytest.mark.prove
@pytest.mark.parametrize(
    ("servers", "even", "expected_s"),
    [
        (1, False, 0.005 * 0.5 / (1 - 0.5)),
        (1, True, 0.005 * 0.5 / (2 * (1 - 0.5))),
        (4, False, erlang_wait_s(0.5, 4)),
    ],
    ids=["M/M/1", "M/D/1", "M/M/4"],
)
def test_mean_waits_are_those_of_theory(
    servers: int, even: bool, expected_s: float, record_property: Callable[[str, object], None]
) -> None:
    waits = [waited(*queueing(60_000, 0.5, servers, even=even, seed=seed), servers).mean() for seed in range(2)]
    record_property("mean_wait_s", float(np.mean(waits)))
    record_property("by_theory_s", expected_s)
    assert np.mean(waits) == pytest.approx(expected_s, rel=0.02)


requests = st.lists(
    st.tuples(st.floats(0, 30, allow_subnormal=False), st.integers(1, 3_000), st.integers(1, 200)),
    min_size=2,
    max_size=40,
).map(sorted)


def played(arrivals: list[tuple[float, int, int]], **options: Any) -> Run:
    at_s, prompts, answers = zip(*arrivals, strict=True)
    policy = options.pop("policy", headrace(TARGETS))
    seed = options.pop("seed", 0)
    return simulate(trace(at_s, prompts, answers), engines(**options), policy, TARGETS, seed=seed)


@settings(max_examples=25)
@given(requests, st.floats(0, 40), st.sampled_from([inf, 20.0]))
def test_every_request_is_answered_whoever_fails(
    arrivals: list[tuple[float, int, int]], startup_s: float, failure_s: float
) -> None:
    run = played(arrivals, startup_s=startup_s, failure_s=failure_s)
    assert np.isfinite(run.last_s).all()
    assert (run.first_s > run.trace.at_s).all()
    assert (run.last_s >= run.first_s).all()
    assert run.failures == 0 or failure_s < inf


@settings(max_examples=10)
@given(requests, st.integers(0, 100))
def test_the_same_seed_gives_the_same_run(arrivals: list[tuple[float, int, int]], seed: int) -> None:
    one, other = (digest(played(arrivals, failure_s=30.0, seed=seed), TARGETS) for _ in range(2))
    assert one == other


def test_replicas_are_paid_for_from_the_decision_to_their_last_token() -> None:
    """One more is asked for at 10 s, serves from 30 s on, and may go at 60 s."""

    def policy(seen: Observed, memory: Any) -> tuple[Wanted, Any]:
        return Wanted(replicas=2 if 10 <= seen.fleet.now_s < 60 else 1, reason="by the clock"), memory

    at_s = np.arange(0, 100, 0.5)
    run = simulate(trace(list(at_s), [100] * 200, 10), engines(startup_s=20.0, begins_with=1), policy, TARGETS)
    assert run.device_s == pytest.approx(run.end_s + 50, abs=1.1)
    assert (run.running[5], run.present[5]) == (1, 1)
    assert (run.running[20], run.present[20]) == (1, 2)
    assert (run.running[40], run.present[40]) == (2, 2)
    assert [(change.at_s, change.before, change.replicas) for change in run.changes] == [(10, 1, 2), (60, 2, 1)]


def test_devices_of_a_replica_are_paid_for_each() -> None:
    one, two = (played([(0.0, 10, 5), (9.0, 10, 5)], devices=devices).device_s for devices in (1, 2))
    assert two == pytest.approx(2 * one)


def test_from_zero_requests_wait_for_a_start_and_the_fleet_goes_back_to_zero() -> None:
    arrivals = [(float(second), 100, 10) for second in range(20)] + [(600.0, 100, 10), (1000.0, 100, 10)]
    run = played(arrivals, startup_s=30.0, begins_with=0)
    assert run.present[300] == 0
    assert 30 <= run.first_s[20] - 600 <= 33
    assert summary(run, TARGETS).unanswered == 0


def test_a_queue_that_is_full_refuses_and_says_so() -> None:
    run = played(
        [(0.0, 10, 5)] * 5 + [(1.0, 10, 5)], begins_with=0, startup_s=10.0, max_queued_requests=3, policy=always(1)
    )
    told = summary(run, TARGETS)
    assert (told.refused, told.unanswered) == (3, 3)
    assert told.attainment == 0


def test_what_a_lost_replica_had_goes_on_elsewhere_after_the_tokens_it_had() -> None:
    """Two replicas; both fail often, and answers take as long as that."""
    run = played(
        [(0.0, 100, 400), (0.1, 100, 400)],
        begins_with=2,
        max_replicas=2,
        failure_s=3.0,
        startup_s=1.0,
        policy=always(2),
        seed=1,
    )
    assert run.failures
    whole = played([(0.0, 100, 400), (0.1, 100, 400)], begins_with=2, max_replicas=2, policy=always(2))
    assert run.first_s == pytest.approx(whole.first_s, abs=0.5)
    assert (run.last_s >= whole.last_s - 0.1).all()


def test_an_hour_that_nobody_asks_for_costs_nothing_and_a_digest_shows_it() -> None:
    run = played([(0.0, 100, 10), (3600.0, 100, 10)], begins_with=0, startup_s=10.0)
    told = digest(run, TARGETS)
    assert told.summary.device_hours < 0.15
    assert told.met.count(None) == len(told.met) - 2
    assert len(told.at_s) == len(told.running) == len(told.queued) <= 241


def test_replicas_start_as_they_did_where_that_is_known() -> None:
    run = played([(0.0, 100, 1), (60.0, 100, 1)], begins_with=0, startup_s=40.0, starts_s=(5.0, 7.0), policy=always(3))
    assert [int(np.argmax(run.running >= number)) for number in (1, 2, 3)] == [6, 8, 41]


def test_a_request_whose_deadline_passes_while_it_waits_is_refused() -> None:
    def hurried(request: Request) -> Request:
        return replace(request, deadline_s=request.arrived_s + 0.5)

    one_at_a_time, ticks = server(begins_with=1, max_replicas=1), [400_000] * 4
    run = simulate(trace([0.0] * 4, ticks), one_at_a_time, always(1), TARGETS, desk=partial(Desk, asked=hurried))
    assert run.refused == 2
    assert np.isfinite(run.first_s).tolist() == [True, True, False, False]


def test_a_replica_whose_steps_take_longer_is_sent_less() -> None:
    at_s = np.arange(0, 60, 0.05)
    counts = []

    class Counted:
        """A desk that counts."""

        def __init__(self, *args: Any, **more: Any) -> None:
            self._desk, self.sent = Desk(*args, **more), Counter[str]()
            self.enter, self.again = self._desk.enter, self._desk.again
            counts.append(self.sent)

        tokens = property(lambda self: self._desk.tokens)

        def __len__(self) -> int:
            return len(self._desk)

        def dispatch(self, replicas: list[Replica], now_s: float) -> list[tuple[Sequence_, Replica | None]]:
            leaving = self._desk.dispatch(replicas, now_s)
            self.sent.update(replica.id for _, replica in leaving if replica is not None)
            return leaving

    for slowness in ((), (4.0,)):
        setup = engines(begins_with=3, max_replicas=3, slowness=slowness)
        simulate(trace(list(at_s), [1_000] * len(at_s), 5), setup, always(3), TARGETS, desk=Counted)
    even, uneven = counts
    assert even["1"] == pytest.approx(len(at_s) / 3, rel=0.2)
    assert uneven["1"] < 0.6 * even["1"]


def test_bounds_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="begins_with must be within 2 and 64, got 1"):
        engines(min_replicas=2)
