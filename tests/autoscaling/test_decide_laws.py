"""Do decisions keep their laws, whatever the fleet and its past?"""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from autoscaling import Fleet, Memory, decide
from tests.autoscaling.told import COSTS, TARGETS, Story, fleets, load, memories, traffic


@given(fleets(), memories())
def test_a_decision_stays_within_its_bounds(fleet: Fleet, memory: Memory):
    decision, _ = decide(fleet, memory, TARGETS)
    assert fleet.min_replicas <= decision.replicas <= fleet.max_replicas


@given(fleets(), memories(), st.integers(0, 100), st.integers(0, 100), st.integers(0, 500))
def test_more_load_never_gives_fewer_replicas(fleet: Fleet, memory: Memory, queued: int, waiting: int, arrived: int):
    comes, more_tokens = fleet.traffic, arrived * fleet.traffic.prompt_tokens
    busier = replace(
        fleet,
        queued_requests=fleet.queued_requests + queued,
        queued_tokens=fleet.queued_tokens + 100 * queued,
        traffic=replace(
            comes,
            short_requests=comes.short_requests + arrived,
            short_tokens=comes.short_tokens + more_tokens,
            long_requests=comes.long_requests + arrived,
            long_tokens=comes.long_tokens + more_tokens,
        ),
        replicas=tuple(
            one
            and replace(
                one,
                running_requests=one.running_requests + waiting,
                waiting_requests=one.waiting_requests + waiting,
                waiting_tokens=one.waiting_tokens + waiting,
                kv_used_tokens=one.kv_used_tokens + waiting,
            )
            for one in fleet.replicas
        ),
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


@given(st.floats(0.5, 100), st.floats(0, 60), st.lists(st.floats(-1, 1), min_size=1, max_size=20))
def test_constant_noisy_load_never_oscillates(mean_per_s: float, startup_s: float, noise: list[float]):
    """Noise of 4 % either way, as the counts of a minute have it at hundreds of requests."""
    story, seen = Story(max_replicas=1_000, slots=256, costs=COSTS, startup_s=startup_s), []
    for now_s in range(400):
        comes = traffic(mean_per_s * (1 + 0.04 * noise[now_s % len(noise)]))
        seen.append(story.at(now_s, comes=comes).replicas)
    settled = seen[int(60 + startup_s + TARGETS.hold_s) :]
    assert len(set(settled)) == 1


@given(fleets())
def test_without_a_memory_a_fleet_never_shrinks_at_once(fleet: Fleet):
    decision, _ = decide(fleet, Memory(), TARGETS)
    assert decision.replicas >= min(fleet.present, fleet.max_replicas)


@given(fleets(), memories())
def test_silent_replicas_never_turn_the_direction_round(fleet: Fleet, memory: Memory):
    """Were they idle the fleet would be large enough, so it doesn't grow; were they full it would not be too large."""
    spoken, _ = decide(fleet, memory, TARGETS)
    capacity = spoken.capacity
    if capacity is None or fleet.silent_routers:
        return
    known = {"slots": int(capacity.slots), "costs": capacity.costs, "kv_tokens": int(capacity.kv_tokens)}
    idle, full = (
        replace(
            fleet,
            replicas=tuple(
                one or load(f"was silent {number}", busy, kv_used_tokens=held, **known)
                for number, one in enumerate(fleet.replicas)
            ),
        )
        for busy, held in ((0, 0), (int(capacity.slots), int(capacity.kv_tokens)))
    )
    if all(one.slots == known["slots"] and one.costs == capacity.costs for one in fleet.heard):
        if decide(idle, memory, TARGETS)[0].wish <= fleet.present:
            assert spoken.wish <= fleet.present
        if decide(full, memory, TARGETS)[0].wish >= fleet.present:
            assert spoken.wish >= fleet.present


@given(fleets(), memories())
def test_an_unknown_queue_never_asks_for_fewer(fleet: Fleet, memory: Memory):
    decision, _ = decide(replace(fleet, silent_routers=1), memory, TARGETS)
    assert decision.wish >= fleet.present


@given(fleets(), memories())
def test_the_numbers_of_a_decision_agree_with_each_other(fleet: Fleet, memory: Memory):
    decision, after = decide(fleet, memory, TARGETS)
    assert decision.capacity == after.capacity
    assert str(decision.replicas) in decision.reason
    assert "\n" not in decision.reason
    expected, fewer = decision.expected, decision.one_fewer
    if expected and fewer:
        assert expected.slots_share <= fewer.slots_share
        if expected.busy_share is not None and fewer.busy_share is not None:
            assert expected.busy_share <= fewer.busy_share
            assert expected.token_s is not None
            assert fewer.token_s is not None
            assert expected.token_s <= fewer.token_s


@given(fleets(), memories())
def test_the_same_past_and_present_give_the_same_decision(fleet: Fleet, memory: Memory):
    assert decide(fleet, memory, TARGETS) == decide(fleet, memory, TARGETS)
