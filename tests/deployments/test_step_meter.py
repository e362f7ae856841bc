"""Does the meter tell rates, cache hits and the age of the last step as the engine's statistics say them?"""

from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.step_meter import REFIT_STEPS, BusyShare, StepMeter
from routing import room_tokens
from routing.rate import MEMORY_S, UNLIKE_S


def scheduler(**counts: Any) -> Any:
    """What vLLM's scheduler says after a step."""
    cache = SimpleNamespace(queries=counts.pop("queries", 0), hits=counts.pop("hits", 0))
    said = {"num_running_reqs": 0, "num_waiting_reqs": 0, "num_skipped_waiting_reqs": 0, "kv_cache_usage": 0.0}
    return SimpleNamespace(prefix_cache_stats=cache, **said | counts)


def iteration(*, prefilled: int = 0, generated: int = 0, ended: int = 0) -> Any:
    """What vLLM's output side says after a step."""
    prompts = SimpleNamespace(computed=prefilled)
    return SimpleNamespace(
        prompt_token_stats=prompts, num_generation_tokens=generated, finished_requests=[None] * ended
    )


def load(meter: StepMeter, unfinished: int = 0) -> Any:
    return meter.load(unfinished=unfinished, prefilling_tokens=11, slots=4, kv_tokens=1000)


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


def test_an_engine_takes_two_steps_of_prompts_in_advance_until_some_steps_told_what_they_cost() -> None:
    meter = StepMeter()
    assert meter.room_tokens(1 << 40) == 2 << 40
    for prefilled in (200, 0) * REFIT_STEPS:
        meter.work_arrived()
        meter.record(scheduler(), iteration(prefilled=prefilled, generated=2))
    costs = meter.costs()
    assert costs is not None
    told = room_tokens(1 << 40, prompt_token_s=costs.prompt_token_s, own_s=costs.step_s)
    assert meter.room_tokens(1 << 40) == pytest.approx(told, rel=0.01)


def test_copies_of_an_engine_are_counted_together_and_each_by_its_own_clock() -> None:
    """Two cores of vLLM's data parallelism that step together: the second's step took as long as the first's."""
    meter = StepMeter()
    meter.work_arrived()
    meter.record(scheduler(num_running_reqs=3), iteration(generated=3), engine_idx=0)
    first = load(meter, unfinished=8)
    meter.record(scheduler(num_running_reqs=3, kv_cache_usage=0.5), iteration(generated=3), engine_idx=1)
    together = load(meter, unfinished=8)
    assert together.decode_tokens_per_s <= first.decode_tokens_per_s
    assert (together.running_requests, together.waiting_requests, together.kv_free_tokens) == (6, 2, 750)


def test_ends_are_told_for_each_busy_second() -> None:
    meter = StepMeter()
    assert meter.ends_per_s() == 0
    began_s = monotonic()
    for ended in (0, 2, 0, 1):
        meter.record(scheduler(num_running_reqs=4), iteration(generated=4, ended=ended))
    assert meter.ends_per_s() >= 3 / (monotonic() - began_s + 0.1)
