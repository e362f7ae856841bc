"""Do decisions tell a sensible story over time?"""

from dataclasses import replace

import pytest

from autoscaling import Fleet, Memory, Targets, decide
from tests.autoscaling.told import COSTS, TARGETS, Story, load, traffic


def test_tokens_and_not_requests_are_what_replicas_are_for():
    few_long = Story(replicas=1, slots=256, costs=COSTS).at(0, comes=traffic(4, prompt_tokens=8_000))
    many_short = Story(replicas=1, slots=256, costs=COSTS).at(0, comes=traffic(40, prompt_tokens=100))
    assert few_long.replicas > many_short.replicas
    assert few_long.needs is not None
    assert few_long.needs.binding == "time"


def test_a_tighter_target_for_each_token_asks_for_more():
    fleet = Fleet(
        now_s=0,
        replicas=(load("a", slots=256, costs=COSTS),),
        starting=0,
        queued_requests=0,
        traffic=traffic(50, prompt_tokens=100),
        min_replicas=0,
        max_replicas=50,
    )
    easy, tight = (decide(fleet, Memory(), replace(TARGETS, token_s=token_s))[0] for token_s in (0.1, 0.014))
    assert tight.replicas > easy.replicas
    expected = tight.expected
    assert expected is not None
    assert expected.token_s is not None
    assert expected.token_s <= 0.014


def test_a_full_cache_asks_for_more():
    full = load("a", 3, slots=256, costs=COSTS, kv_tokens=10_000, kv_used_tokens=9_000)
    fleet = Fleet(now_s=0, replicas=(full,), starting=0, queued_requests=0, min_replicas=0, max_replicas=9)
    decision, _ = decide(fleet, Memory(), TARGETS)
    assert decision.replicas == 2
    assert "their cache asks for 2" in decision.reason


def test_a_rise_counts_at_once_when_it_is_more_than_chance():
    calm = traffic(4)
    risen = replace(calm, short_requests=15 * 40, short_tokens=15 * 40 * 500, long_requests=800, long_tokens=400_000)
    lucky = replace(calm, short_requests=70, short_tokens=35_000)
    story = Story(replicas=1, slots=256, costs=COSTS)
    before = story.at(0, comes=calm).replicas
    assert story.at(1, comes=lucky).replicas == before
    assert story.at(2, comes=risen).replicas >= 5


def test_a_queue_that_clears_before_help_could_come_asks_for_nothing_and_one_that_stands_does():
    story = Story(replicas=2, slots=256, costs=COSTS)
    for now_s in range(20):
        assert story.at(now_s, queued=50 if now_s % 5 else 0, comes=traffic(4)).replicas == 2
    for now_s in range(20, 40):
        story.at(now_s, queued=2_000, comes=traffic(4))
    assert story.replicas > 2


def test_a_queue_that_stands_asks_for_who_serves_it_in_time_and_not_for_room_for_all_of_it_at_once():
    """A minute's work of one engine, whose tokens would fill the caches of ten."""
    story = Story(replicas=2, slots=64, kv_tokens=20_000, costs=COSTS)
    decision = [story.at(now_s, queued=1_000, comes=traffic(4, prompt_tokens=100)) for now_s in range(30)][-1]
    assert decision.demand.backlog_s == pytest.approx(60, rel=0.2)
    assert decision.needs is not None
    assert (decision.needs.slots, decision.needs.cache) == (2, 1)
    assert 2 <= decision.replicas <= 4


def test_replicas_count_at_the_time_when_they_will_serve():
    """Half of the load can be served: what has come until help comes waits then, and is counted before."""
    quick, slow = (Story(replicas=1, slots=256, costs=COSTS, startup_s=startup_s) for startup_s in (5, 120))
    for story in (quick, slow):
        for now_s in range(0, 600, 5):
            story.at(now_s, comes=traffic(4 if now_s < 300 else 25))
    assert quick.memory.startup_s == pytest.approx(5, abs=5)
    assert slow.memory.startup_s == pytest.approx(120, abs=5)


def test_what_users_miss_corrects_the_need_slowly():
    story = Story(replicas=3, slots=256, costs=COSTS)
    bad = replace(traffic(14), judged_requests=200, missed_requests=40)
    good = replace(traffic(14), judged_requests=200)
    for now_s in range(300):
        story.at(now_s, comes=bad)
    worse = story.memory.correction
    assert 1.1 < worse <= 1.5
    for now_s in range(300, 1_300):
        story.at(now_s, comes=good)
    assert 0.8 <= story.memory.correction < worse


def test_others_on_the_same_gpu_take_capacity_away():
    alone = load("a", slots=256, costs=COSTS, busy_share=0.4, gpu_busy_share=0.45, gpu_memory_share=0.9)
    shared = replace(alone, gpu_busy_share=0.9)
    few, many = (
        decide(
            Fleet(
                now_s=0,
                replicas=(one,),
                starting=0,
                queued_requests=0,
                traffic=traffic(20),
                min_replicas=0,
                max_replicas=50,
            ),
            Memory(),
            TARGETS,
        )[0]
        for one in (alone, shared)
    )
    assert many.replicas > few.replicas
    assert "GPUs 45% busy, 90% of their memory taken" in few.reason


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
    assert "no replica has spoken yet" in decision.reason
    assert story.at(30, queued=100).replicas == 15


def test_up_at_once_and_down_only_after_the_hold():
    story = Story(replicas=1)
    assert story.at(0, busy=7).replicas == 1
    assert story.at(1, busy=7, queued=14).replicas == 3
    assert story.at(2).replicas == 3
    assert story.at(60.9).replicas == 3
    assert story.at(61).replicas == 0


def test_replicas_that_take_long_to_start_are_held_for_as_long():
    story = Story(replicas=1, startup_s=200.0)
    story.at(0, busy=7)
    for now_s in range(1, 300):
        story.at(now_s, busy=7, queued=14)
    assert {story.at(now_s).replicas for now_s in range(300, 490)} == {5}
    assert {story.at(now_s).replicas for now_s in range(490, 506)} >= {0}


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
    assert story.at(60, queued=6).replicas == 6
    assert story.at(90, queued=6).replicas == 1


def test_replicas_that_are_starting_are_not_asked_for_again():
    fleet = Fleet(now_s=0, replicas=(load("a", 10),), starting=2, queued_requests=10, min_replicas=0, max_replicas=20)
    decision, _ = decide(fleet, Memory(), TARGETS)
    assert (decision.wish, decision.replicas) == (3, 3)


def test_a_loss_of_memory_costs_one_hold_and_no_replica():
    story = Story(replicas=5)
    story.at(0, busy=6)
    story.memory = Memory()
    assert story.at(1).replicas == 5
    assert story.at(60.9).replicas == 5
    assert story.at(61).replicas == 0


def test_a_clock_that_was_set_back_costs_no_replica_and_holds_for_no_longer_than_the_hold():
    story = Story(replicas=5)
    story.at(1_000, busy=6)
    assert story.at(10).replicas == 5
    assert story.at(70).replicas == 0


def test_load_rising_on_the_one_heard_replica_does_not_shrink_a_mostly_silent_fleet():
    story = Story(replicas=3)
    story.at(0, busy=6)
    for now_s in range(1, 200):
        assert story.at(now_s, busy=10, silent=2).replicas == 3


def test_silence_of_one_replica_does_not_stop_a_rise():
    story = Story(replicas=3)
    assert story.at(0, busy=10, silent=1, queued=29).replicas == 7


def test_the_reason_tells_the_numbers_and_what_one_fewer_would_have_meant():
    story = Story(replicas=2, max_replicas=3)
    decision = story.at(0, busy=8, queued=3)
    assert decision.reason == (
        "2 -> 3 replicas; 16 requests in engines, 3 queued; their slots ask for 3; "
        "2 would have 95% of their slots taken; allowed 0 to 3"
    )
    decision = Story(replicas=5, slots=256, costs=COSTS).at(0, comes=traffic(30))
    assert decision.reason == (
        "5 -> 5 replicas; 0 requests in engines, 0 queued; 15,000 prompt and 3,000 output tokens/s "
        "keep 3.00 engines busy; their time asks for 5; 4 would be 75% busy: 40 ms a token"
    )


def test_the_reason_tells_why_idle_replicas_are_kept():
    story = Story(replicas=3)
    story.at(0, busy=6)
    assert "3 were wanted 20 s ago" in story.at(20).reason


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


@pytest.mark.parametrize("name", ["target_utilization", "attainment"])
@pytest.mark.parametrize("share", [0.0, -1.0, 1.1, float("nan")])
def test_a_share_that_makes_no_sense_is_refused(name: str, share: float):
    with pytest.raises(ValueError, match=f"{name} must be"):
        Targets(**{name: share})


@pytest.mark.parametrize("name", ["hold_s", "ttft_s", "token_s"])
@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_a_time_that_makes_no_sense_is_refused(name: str, seconds: float):
    with pytest.raises(ValueError, match=f"{name} must be"):
        Targets(**{name: seconds})


def test_bounds_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="max_replicas must be >= min_replicas 2, got 1"):
        Fleet(now_s=0, replicas=(), starting=0, queued_requests=0, min_replicas=2, max_replicas=1)
