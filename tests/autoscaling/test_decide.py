"""Do decisions keep their laws, and do they tell a sensible story over time?"""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling import Decision, Fleet, Memory, ReplicaLoad, Targets, decide

TARGETS = Targets(utilization=0.7, hold_s=60.0)


def load(replica_id: str, busy: int = 0, *, waiting: int = 0, slots: int = 10) -> ReplicaLoad:
    return ReplicaLoad(id=replica_id, running_requests=busy, waiting_requests=waiting, slots=slots)


@dataclass
class Story:
    """A model under load that gets exactly the replicas that were decided, at once."""

    min_replicas: int = 0
    max_replicas: int = 20
    replicas: int = 0
    slots: int = 10
    memory: Memory = field(default_factory=Memory)

    def at(self, now_s: float, *, queued: int = 0, busy: int = 0, silent: int = 0) -> Decision:
        """`busy` requests run on each replica that is not silent."""
        heard = [load(str(number), busy, slots=self.slots) for number in range(self.replicas - silent)]
        fleet = Fleet(
            now_s=now_s,
            replicas=(*heard, *[None] * silent),
            starting=0,
            queued_requests=queued,
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
        )
        decision, self.memory = decide(fleet, self.memory, TARGETS)
        self.replicas = decision.replicas
        return decision


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    slots = draw(st.integers(1, 64))
    shapes = st.none() | st.tuples(st.integers(0, 80), st.integers(0, 80))
    loads = [
        None if shape is None else load(str(number), shape[0], waiting=shape[1], slots=slots)
        for number, shape in enumerate(draw(st.lists(shapes, max_size=6)))
    ]
    min_replicas = draw(st.integers(0, 4))
    return Fleet(
        now_s=draw(st.floats(0, 200)),
        replicas=tuple(loads),
        starting=draw(st.integers(0, 3)),
        queued_requests=draw(st.integers(0, 300)),
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


@given(fleets(), memories())
def test_a_decision_stays_within_its_bounds(fleet: Fleet, memory: Memory):
    decision, _ = decide(fleet, memory, TARGETS)
    assert fleet.min_replicas <= decision.replicas <= fleet.max_replicas


@given(fleets(), memories(), st.integers(0, 100), st.integers(0, 100))
def test_more_load_never_gives_fewer_replicas(fleet: Fleet, memory: Memory, queued: int, waiting: int):
    busier = replace(
        fleet,
        queued_requests=fleet.queued_requests + queued,
        replicas=tuple(one and replace(one, waiting_requests=one.waiting_requests + waiting) for one in fleet.replicas),
    )
    assert decide(busier, memory, TARGETS)[0].replicas >= decide(fleet, memory, TARGETS)[0].replicas


@given(st.lists(st.tuples(st.floats(0.1, 30), st.integers(0, 200)), min_size=1, max_size=30))
def test_never_down_within_the_hold_of_a_larger_wish(load_over_time: list[tuple[float, int]]):
    story, now_s, wishes = Story(replicas=3), 0.0, list[tuple[float, int]]()
    for pause_s, queued in load_over_time:
        now_s += pause_s
        decision = story.at(now_s, queued=queued)
        wishes.append((now_s, decision.wish))
        recent = [wish for at_s, wish in wishes if at_s > now_s - TARGETS.hold_s]
        assert decision.replicas >= min(max(recent), story.max_replicas)


@given(fleets())
def test_without_a_memory_a_fleet_never_shrinks_at_once(fleet: Fleet):
    decision, _ = decide(fleet, Memory(), TARGETS)
    assert decision.replicas >= min(fleet.present, fleet.max_replicas)


@given(fleets(), memories())
def test_silent_replicas_never_turn_the_direction_round(fleet: Fleet, memory: Memory):
    silent = len(fleet.replicas) - len(fleet.heard)
    decision, after = decide(fleet, memory, TARGETS)
    if after.slots is None:
        return
    per_replica = after.slots * TARGETS.utilization
    if fleet.demand_requests / per_replica <= fleet.present:
        assert decision.wish <= fleet.present
    if (fleet.demand_requests + silent * after.slots) / per_replica >= fleet.present:
        assert decision.wish >= fleet.present


@given(fleets(), memories())
def test_an_unknown_queue_never_asks_for_fewer(fleet: Fleet, memory: Memory):
    decision, _ = decide(replace(fleet, silent_routers=1), memory, TARGETS)
    assert decision.wish >= fleet.present


@given(fleets(), memories())
def test_the_numbers_of_a_decision_agree_with_each_other(fleet: Fleet, memory: Memory):
    decision, after = decide(fleet, memory, TARGETS)
    assert decision.slots == after.slots
    assert str(decision.replicas) in decision.reason
    assert "\n" not in decision.reason
    if decision.utilization is not None and decision.one_fewer_utilization is not None:
        assert decision.utilization <= decision.one_fewer_utilization


@given(fleets(), memories())
def test_the_same_past_and_present_give_the_same_decision(fleet: Fleet, memory: Memory):
    assert decide(fleet, memory, TARGETS) == decide(fleet, memory, TARGETS)


def test_from_zero_to_as_many_as_needed_in_one_decision():
    story = Story(replicas=1)
    story.at(0)
    story.at(60)
    assert story.replicas == 0
    assert story.at(300, queued=21).replicas == 3


def test_from_zero_without_any_knowledge_one_replica_comes_first():
    story = Story()
    assert story.at(0).replicas == 0
    decision = story.at(1, queued=100)
    assert decision.replicas == 1
    assert "no replica has told its slots yet" in decision.reason
    assert story.at(30, queued=100).replicas == 15


def test_up_at_once_and_down_only_after_the_hold():
    story = Story(replicas=1)
    assert story.at(0, busy=7).replicas == 1
    assert story.at(1, busy=7, queued=14).replicas == 3
    assert story.at(2).replicas == 3
    assert story.at(60.9).replicas == 3
    assert story.at(61).replicas == 0


def test_a_second_peak_renews_the_hold():
    story = Story(replicas=1)
    story.at(0, queued=21)
    story.at(50, queued=21)
    assert story.at(100).replicas == 3
    assert story.at(110).replicas == 0


def test_going_down_follows_the_largest_recent_wish_and_not_the_last():
    story = Story(replicas=1)
    story.at(0, queued=70)
    story.at(30, queued=35)
    assert story.at(60, queued=7).replicas == 5
    assert story.at(90, queued=7).replicas == 1


def test_replicas_that_are_starting_are_not_asked_for_again():
    fleet = Fleet(now_s=0, replicas=(load("a", 10),), starting=2, queued_requests=10, min_replicas=0, max_replicas=20)
    decision, _ = decide(fleet, Memory(), TARGETS)
    assert (decision.wish, decision.replicas) == (3, 3)


def test_a_loss_of_memory_costs_one_hold_and_no_replica():
    story = Story(replicas=5)
    story.at(0, busy=7)
    story.memory = Memory()
    assert story.at(1).replicas == 5
    assert story.at(60.9).replicas == 5
    assert story.at(61).replicas == 0


def test_a_clock_that_was_set_back_costs_no_replica_and_holds_for_no_longer_than_the_hold():
    story = Story(replicas=5)
    story.at(1_000, busy=7)
    assert story.at(10).replicas == 5
    assert story.at(70).replicas == 0


def test_load_rising_on_the_one_heard_replica_does_not_shrink_a_mostly_silent_fleet():
    story = Story(replicas=3)
    story.at(0, busy=7)
    for now_s in range(1, 200):
        assert story.at(now_s, busy=10, silent=2).replicas == 3


def test_silence_of_one_replica_does_not_stop_a_rise():
    story = Story(replicas=3)
    assert story.at(0, busy=10, silent=1, queued=29).replicas == 7


def test_the_reason_tells_the_numbers_and_what_one_fewer_would_have_meant():
    story = Story(replicas=2, max_replicas=3)
    decision = story.at(0, busy=8, queued=3)
    assert decision.reason == (
        "2 -> 3 replicas; 16 requests in engines, 3 queued; 10 slots a replica at 0.7 ask for 3; "
        "2 would be 95% busy; allowed 0 to 3"
    )
    assert decision.one_fewer_utilization == pytest.approx(0.95)
    assert decision.utilization == pytest.approx(19 / 30)


def test_the_reason_tells_why_idle_replicas_are_kept():
    story = Story(replicas=3)
    story.at(0, busy=7)
    assert "3 were wanted 20 s ago, kept for 60 s" in story.at(20).reason


def test_a_float_does_not_ask_for_a_replica_too_many():
    fleet = Fleet(
        now_s=0,
        replicas=(load("a", 0, slots=3),),
        starting=0,
        queued_requests=21,
        min_replicas=0,
        max_replicas=20,
    )
    assert decide(fleet, Memory(), TARGETS)[0].wish == 10


@pytest.mark.parametrize("utilization", [0.0, -1.0, 1.1, float("nan")])
def test_a_utilization_that_makes_no_sense_is_refused(utilization: float):
    with pytest.raises(ValueError, match="utilization must be"):
        Targets(utilization=utilization)


@pytest.mark.parametrize("hold_s", [-1.0, float("inf"), float("nan")])
def test_a_hold_that_makes_no_sense_is_refused(hold_s: float):
    with pytest.raises(ValueError, match="hold_s must be"):
        Targets(hold_s=hold_s)


def test_bounds_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="max_replicas must be >= min_replicas 2, got 1"):
        Fleet(now_s=0, replicas=(), starting=0, queued_requests=0, min_replicas=2, max_replicas=1)
