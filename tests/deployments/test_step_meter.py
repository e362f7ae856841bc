"""Does the meter tell rates, cache hits and the age of the last step as the engine's statistics say them?"""

from time import monotonic
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from deployments.step_meter import MEMORY_S, UNLIKE_S, BusyShare, Rate, StepMeter

steps = st.lists(st.tuples(st.integers(0, 10_000), st.floats(0.001, 30.0)), min_size=1, max_size=50)


def scheduler(**counts: Any) -> Any:
    """What vLLM's scheduler says after a step."""
    cache = SimpleNamespace(queries=counts.pop("queries", 0), hits=counts.pop("hits", 0))
    said = {"num_running_reqs": 0, "num_waiting_reqs": 0, "num_skipped_waiting_reqs": 0, "kv_cache_usage": 0.0}
    return SimpleNamespace(prefix_cache_stats=cache, **said | counts)


def iteration(*, prefilled: int = 0, generated: int = 0) -> Any:
    """What vLLM's output side says after a step."""
    return SimpleNamespace(prompt_token_stats=SimpleNamespace(computed=prefilled), num_generation_tokens=generated)


def load(meter: StepMeter, unfinished: int = 0) -> Any:
    return meter.load(unfinished=unfinished, prefilling_tokens=11, slots=4, kv_tokens=1000)


def test_a_rate_is_unknown_until_something_was_measured() -> None:
    assert Rate().per_s() == 0.0


@given(steps)
def test_a_rate_lies_between_the_slowest_and_the_fastest_step(measured: list[tuple[int, float]]) -> None:
    rate = Rate()
    for tokens, seconds in measured:
        rate.add(tokens, seconds)
    each = [tokens / seconds for tokens, seconds in measured]
    assert min(each) * 0.999 - 1e-9 <= rate.per_s() <= max(each) * 1.001 + 1e-9


@given(st.floats(1.0, 1e4), st.floats(1.0, 1e4))
def test_a_rate_follows_a_change_within_a_few_memories(before: float, after: float) -> None:
    rate = Rate()
    for speed in (before, after):
        for _ in range(500):
            rate.add(int(speed * 10), 0.1)
    wanted = int(after * 10) / 0.1
    assert 5 * MEMORY_S <= 500 * 0.1
    assert abs(rate.per_s() - wanted) <= 0.01 * max(wanted, int(before * 10) / 0.1)


@given(
    st.floats(0.0, 1.0),
    st.floats(0.0, 0.01),
    st.lists(st.integers(1, 1000), min_size=1, max_size=50),
    st.integers(1, 1000),
)
def test_an_engine_whose_steps_grow_with_their_tokens_never_takes_longer_than_predicted(
    each_s: float, token_s: float, measured: list[int], next_tokens: int
) -> None:
    rate = Rate()
    for tokens in measured:
        rate.add(tokens, each_s + token_s * tokens + 1e-9)
    takes_s = each_s + token_s * next_tokens
    assert rate.step_s(next_tokens) >= min(takes_s, UNLIKE_S) * 0.999


@given(steps, st.integers(1, 10_000))
def test_a_prediction_is_bounded_by_the_mean_step_and_by_what_a_step_unlike_any_other_gets(
    measured: list[tuple[int, float]], tokens: int
) -> None:
    rate = Rate()
    assert rate.step_s(tokens) == UNLIKE_S
    for made, seconds in measured:
        rate.add(made + 1, seconds)
    assert rate.step_s(tokens) <= max(UNLIKE_S, *(seconds for _, seconds in measured)) * 1.001
    assert rate.step_s(tokens) <= rate.step_s(tokens + 1)


def test_first_steps_of_either_kind_are_like_none_before() -> None:
    meter = StepMeter()
    assert meter.step_s(requests=1, prefilling_tokens=10) == UNLIKE_S
    meter.record(scheduler(num_running_reqs=1), iteration(prefilled=10, generated=1))
    assert meter.step_s(requests=1, prefilling_tokens=10) < UNLIKE_S
    assert meter.step_s(requests=1, prefilling_tokens=0) == UNLIKE_S
    meter.record(scheduler(num_running_reqs=1), iteration(generated=1))
    reading_s = meter.step_s(requests=1, prefilling_tokens=10)
    assert meter.step_s(requests=1, prefilling_tokens=0) < reading_s < UNLIKE_S


def test_a_step_with_prompt_tokens_counts_to_prefill_and_any_other_to_decode() -> None:
    meter = StepMeter()
    meter.work_arrived()
    meter.record(scheduler(num_running_reqs=2), iteration(prefilled=500, generated=1))
    first = load(meter)
    assert first.prefill_tokens_per_s > 0
    assert first.decode_tokens_per_s == 0
    meter.record(scheduler(num_running_reqs=2), iteration(generated=2))
    second = load(meter)
    assert second.decode_tokens_per_s > 0
    assert second.prefill_tokens_per_s == first.prefill_tokens_per_s
    assert meter.steps == 2


def test_idle_time_is_nobody_s() -> None:
    """The clock of an idle engine starts when work arrives, not at its last step."""
    meter = StepMeter()
    meter.record(scheduler(), iteration())
    meter.work_arrived()
    arrived_s = monotonic()
    assert meter.step_age_s(arrived_s + 5.0) <= 5.1
    meter.record(scheduler(num_running_reqs=1), iteration(prefilled=100))
    assert load(meter).prefill_tokens_per_s >= 100 / (monotonic() - arrived_s + 1.0)


def test_work_that_arrives_at_a_busy_engine_does_not_hide_that_it_hangs() -> None:
    meter = StepMeter()
    meter.record(scheduler(num_running_reqs=1), iteration(prefilled=10))
    age_s = meter.step_age_s(monotonic() + 100.0)
    meter.work_arrived()
    assert meter.step_age_s(monotonic() + 100.0) >= age_s


def test_the_load_holds_what_the_scheduler_said_last() -> None:
    meter = StepMeter()
    meter.record(
        scheduler(num_running_reqs=3, num_waiting_reqs=1, num_skipped_waiting_reqs=1, kv_cache_usage=0.25),
        None,
    )
    seen = load(meter, unfinished=5)
    assert (seen.running_requests, seen.waiting_requests) == (3, 2)
    assert (seen.slots, seen.prefilling_tokens) == (4, 11)
    assert (seen.kv_tokens, seen.kv_free_tokens) == (1000, 750)


def test_the_load_never_counts_requests_that_ended_since() -> None:
    meter = StepMeter()
    meter.record(scheduler(num_running_reqs=3), None)
    seen = load(meter, unfinished=1)
    assert (seen.running_requests, seen.waiting_requests) == (1, 0)


def test_cache_hits_add_up_over_steps() -> None:
    meter = StepMeter()
    for queries, hits in ((10, 0), (20, 16)):
        meter.record(scheduler(queries=queries, hits=hits), None)
    meter.record(None, None)
    seen = load(meter)
    assert (seen.prefix_queried_tokens, seen.prefix_hit_tokens) == (30, 16)


def test_only_a_busy_engine_has_an_age() -> None:
    meter = StepMeter()
    assert load(meter, unfinished=0).step_age_s == 0.0
    assert load(meter, unfinished=1).step_age_s > 0.0


def test_costs_are_known_from_the_first_step_on() -> None:
    meter = StepMeter()
    assert meter.costs() is None
    meter.work_arrived()
    meter.record(scheduler(num_running_reqs=1), iteration(prefilled=100, generated=1))
    costs = meter.costs()
    assert costs is not None
    assert costs.step_s + costs.sequence_s + costs.prompt_token_s * 100 > 0


def test_the_busy_share_is_that_of_the_last_seconds() -> None:
    busy = BusyShare(now_s=0.0)
    assert busy.at(0.0) == 0.0
    for tenth in range(1, 301):
        busy.add(0.05, tenth / 10)
    assert 0.49 < busy.at(30.0) < 0.51
    assert busy.at(30.0 + 3 * MEMORY_S) < 0.05


def test_what_the_cache_spared_is_no_work() -> None:
    meter = StepMeter()
    assert meter.computed_share() == 1.0
    meter.record(scheduler(queries=200, hits=150), None)
    assert meter.computed_share() == 0.25
