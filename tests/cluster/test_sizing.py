"""How many replicas keep the targets: more rate and stricter targets never need fewer, and cost follows."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.device_facts import BY_NAME
from cluster.engine_memory import default_settings
from cluster.service import Requests
from cluster.sizing import Sizing, Targets, cost, most_per_s, size
from cluster.speed import step_seconds, unmeasured
from cluster.step_time import Layout
from tests.cluster.shapes import dense

H100 = BY_NAME["h100"]
SETTINGS = default_settings(H100, context_tokens=8_192)
STEP = step_seconds(dense(), H100, unmeasured(dense(), H100, "bf16"), layout=Layout())
CHAT = Targets(rate_per_s=10.0, requests=Requests(prompt_tokens=1_000, output_tokens=250))
targets = st.builds(
    Targets,
    rate_per_s=st.floats(0.01, 500),
    requests=st.builds(Requests, prompt_tokens=st.integers(1, 4_000), output_tokens=st.integers(1, 1_000)),
    ttft_s=st.just(inf) | st.floats(0.02, 5),
    token_s=st.just(inf) | st.floats(0.007, 0.5),
)


def sized(asked: Targets, *, slots: int = 128, error: float = 0.25) -> Sizing:
    return size(asked, slots=slots, settings=SETTINGS, step=STEP, error=error)


def counted(replicas: int | None) -> float:
    return inf if replicas is None else replicas


def test_the_number_is_the_smallest_and_its_reason_names_what_one_less_would_miss() -> None:
    found = sized(replace(CHAT, rate_per_s=100.0))
    assert found.replicas is not None
    assert found.each is not None
    assert found.replicas - 1 < 100.0 / found.capacity_per_s <= found.replicas
    assert found.reason == f"{found.replicas - 1} would miss the rate itself"
    assert found.each.rate_per_s == pytest.approx(100.0 / found.replicas)


def test_a_target_that_an_idle_replica_misses_is_kept_by_no_number() -> None:
    found = sized(replace(CHAT, ttft_s=0.001))
    assert found.replicas is None
    assert found.each is None
    assert found.reason.startswith("the first token within 0.001 s (")
    assert found.reason.endswith("can't be kept even by an idle replica")


def test_one_is_enough_for_little() -> None:
    assert sized(replace(CHAT, rate_per_s=0.1)).reason == "one replica is enough"


def test_cost_is_hours_times_price_over_tokens() -> None:
    found = cost(CHAT, replicas=3, devices=2, price_per_device_hour=2.0)
    assert found.device_hours_per_hour == 6
    assert found.per_hour == 12.0
    assert found.per_million_output_tokens == pytest.approx(12.0 / (10 * 250 * 3_600 / 1e6))
    assert found.per_million_tokens == pytest.approx(12.0 / (10 * 1_250 * 3_600 / 1e6))


@settings(max_examples=40)  # each is sized many times
@given(targets, st.floats(1.0, 10.0))
def test_more_rate_never_needs_fewer_replicas(asked: Targets, factor: float) -> None:
    more = replace(asked, rate_per_s=asked.rate_per_s * factor)
    assert counted(sized(more).replicas) >= counted(sized(asked).replicas)


@settings(max_examples=40)  # each is sized many times
@given(targets, st.floats(0.1, 1.0), st.floats(0.1, 1.0))
def test_stricter_targets_never_need_fewer(asked: Targets, sooner: float, faster: float) -> None:
    stricter = replace(asked, ttft_s=asked.ttft_s * sooner, token_s=asked.token_s * faster)
    assert counted(sized(stricter).replicas) >= counted(sized(asked).replicas)


@settings(max_examples=40)  # each is sized many times
@given(targets, st.floats(0.0, 2.0))
def test_the_error_holds_the_number_between_its_bounds(asked: Targets, error: float) -> None:
    found = sized(asked, error=error)
    assert counted(found.replicas_if_faster) <= counted(found.replicas) <= counted(found.replicas_if_slower)


@given(targets)
@settings(max_examples=30)
def test_the_most_that_one_replica_takes_is_where_a_second_is_needed(asked: Targets) -> None:
    most = most_per_s(asked, slots=128, settings=SETTINGS, step=STEP)
    if sized(asked).replicas is None:
        assert most == 0 or sized(replace(asked, rate_per_s=most / 2)).replicas == 1
    elif most > 1e-6:
        assert sized(replace(asked, rate_per_s=0.99 * most)).replicas == 1
        assert counted(sized(replace(asked, rate_per_s=1.01 * most)).replicas) > 1
