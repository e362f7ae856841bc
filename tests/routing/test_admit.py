"""Is a request refused only when it must be, with a time at which it gets in?"""

from heapq import heappop, heappush
from random import Random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing import Gate, Queue, Request, Tier, TierGates, admit, wait_s
from routing.gate import RETRY_UNKNOWN_S


def request(number: int, *, tokens: int = 100, **what: object) -> Request:
    return Request(id=number, prompt_tokens=tokens, max_output_tokens=16, arrived_s=0.0, key=number, **what)  # type: ignore[arg-type]


class Door:
    """A queue that empties in order, at a steady rate, through a gate."""

    def __init__(self, limit: int, rate_per_s: float, seed: int = 0) -> None:
        self.queue, self.gates, self.random = Queue(), TierGates(limit), Random(seed)
        self.rate_per_s, self.now_s, self._next_s = rate_per_s, 0.0, 0.0

    def at(self, now_s: float) -> None:
        """What leaves until then has left."""
        while self._next_s <= now_s:
            if (first := self.queue.first()) is not None:
                self.queue.leave(first, self._next_s)
                self.gates.leave(first.tier, self._next_s, first.prompt_tokens)
            self._next_s += self.random.expovariate(self.rate_per_s)
        self.now_s = now_s

    def ask(self, one: Request) -> int | None:
        refusal = admit(one, queue=self.queue, gates=self.gates, now_s=self.now_s)
        if refusal is None:
            self.queue.add(one)
            self.gates.enter(one.tier, self.now_s)
            return None
        return refusal.retry_after_s


def overloaded(*, patience: float, seed: int) -> list[bool]:
    """Twice as many come as can leave. A third of the refused come again, once, after `patience` times what was told.

    Whether they got in then.
    """
    door, random = Door(50, rate_per_s=10.0, seed=seed), Random(seed + 1)
    events: list[tuple[float, int, int]] = []
    at_s = 0.0
    for number in range(4000):
        at_s += random.expovariate(20.0)
        heappush(events, (at_s, number, 0))
    came = list[bool]()
    while events:
        now_s, number, told_s = heappop(events)
        door.at(now_s)
        again_s = door.ask(request(number))
        if told_s:
            came.append(again_s is None)
        elif again_s is not None and now_s > 10 and number % 3 == 0:
            heappush(events, (now_s + patience * again_s, number, again_s))
    return came


def test_who_waits_as_told_is_let_in_next() -> None:
    came = overloaded(patience=1.0, seed=3)
    assert len(came) > 200
    assert sum(came) >= 0.9 * len(came)


def test_who_comes_at_half_the_time_is_mostly_refused() -> None:
    came = overloaded(patience=0.5, seed=4)
    assert len(came) > 200
    assert came.count(False) >= 0.5 * len(came)


def test_the_time_told_is_about_the_time_at_which_there_is_a_place() -> None:
    """Some of the refused try all the time, at each tenth of what they were told first."""
    door, random = Door(50, rate_per_s=10.0, seed=5), Random(6)
    events: list[tuple[float, int, float, float]] = []
    at_s, errors = 0.0, list[float]()
    for number in range(4000):
        at_s += random.expovariate(20.0)
        heappush(events, (at_s, number, 0.0, 0.0))
    while events:
        now_s, number, told_s, since_s = heappop(events)
        door.at(now_s)
        again_s = door.ask(request(number))
        if again_s is None and told_s and now_s > 20:
            errors.append(abs(told_s - (now_s - since_s)) / (now_s - since_s))
        elif again_s is not None and number % 3 == 0 and now_s < at_s:
            told_s, since_s = (told_s, since_s) if told_s else (float(again_s), now_s)
            heappush(events, (now_s + told_s / 10, number, told_s, since_s))
    assert len(errors) > 200
    assert median(errors) <= 0.3


@given(st.integers(1, 30), st.integers(0, 60))
def test_only_a_full_gate_refuses(limit: int, inside: int) -> None:
    gate = Gate(limit)
    for _ in range(inside):
        gate.drain.enter(0.0)
    assert (gate.ask(1, 1.0) is None) == (inside < limit)


def test_a_full_queue_answers_503_and_names_its_length() -> None:
    gates = TierGates(8)
    for _ in range(8):
        gates.enter(Tier.INTERACTIVE, 0.0)
    refusal = admit(request(1), queue=Queue(), gates=gates, now_s=1.0)
    assert refusal is not None
    assert (refusal.status, refusal.code, refusal.retry_after_s) == (503, "overloaded", RETRY_UNKNOWN_S)
    assert "8 requests" in refusal.reason


@pytest.mark.parametrize("waiting", Tier)
@pytest.mark.parametrize("asking", Tier)
def test_a_flood_keeps_nobody_out_who_goes_before_it(waiting: Tier, asking: Tier) -> None:
    gates = TierGates(8)
    for _ in range(8):
        gates.enter(waiting, 0.0)
    refusal = admit(request(1, tier=asking), queue=Queue(), gates=gates, now_s=1.0)
    assert (refusal is None) == (asking < waiting)
    gates.leave(waiting, 2.0, 100)
    assert admit(request(2, tier=asking), queue=Queue(), gates=gates, now_s=2.0) is None


def test_a_tenant_at_its_own_limit_gets_429_whatever_room_there_is() -> None:
    own = Gate(2)
    own.drain.enter(0.0)
    own.drain.enter(0.0)
    for name in ("tenant_queued", "tenant_open"):
        refusal = admit(request(1), queue=Queue(), gates=TierGates(100), now_s=1.0, **{name: own})
        assert refusal is not None
        assert (refusal.status, refusal.code) == (429, "too_many_requests")


def test_a_deadline_that_the_queue_can_not_meet_is_refused_at_once() -> None:
    door = Door(1000, rate_per_s=10.0)
    for number in range(100):
        door.ask(request(number))
    door.at(5.0)
    late = request(200, deadline_s=8.0)
    predicted_s = wait_s(late, queue=door.queue, drain=door.gates.drain, now_s=5.0)
    assert 2 < predicted_s < 12
    refusal = admit(late, queue=door.queue, gates=door.gates, now_s=5.0)
    assert refusal is not None
    assert (refusal.status, refusal.code) == (503, "deadline")
    assert admit(request(201, deadline_s=60.0), queue=door.queue, gates=door.gates, now_s=5.0) is None
    urgent = request(202, deadline_s=8.0, tier=Tier.INTERACTIVE, tenant="other")
    assert admit(urgent, queue=door.queue, gates=door.gates, now_s=5.0) is None, "its tenant has nothing waiting"


def test_a_deadline_is_not_refused_on_a_guess() -> None:
    queue, gates = Queue(), TierGates(10)
    assert admit(request(1, deadline_s=0.1), queue=queue, gates=gates, now_s=0.0) is None
    queue.add(request(2))
    assert admit(request(1, deadline_s=0.1), queue=queue, gates=gates, now_s=0.0) is None
