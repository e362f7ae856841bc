"""One replica in its steady state: times grow with the rate, and end where it can't keep up."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf, isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.device_facts import BY_NAME
from cluster.engine_memory import default_settings
from cluster.service import Requests, Service, capacity_per_s, mixed_step_s, service, usable_slots
from cluster.speed import prompt_chunks, speed, step_seconds, unmeasured
from cluster.step_time import Layout
from cluster.step_work import Chunk
from tests.cluster.shapes import dense

H100 = BY_NAME["h100"]
SETTINGS = default_settings(H100, context_tokens=8_192)
CHAT = Requests(prompt_tokens=1_000, output_tokens=250)
STEP = step_seconds(dense(), H100, unmeasured(dense(), H100, "bf16"), layout=Layout())
requests = st.builds(Requests, prompt_tokens=st.integers(1, 6_000), output_tokens=st.integers(1, 2_000))


def at(rate_per_s: float, asked: Requests = CHAT, slots: int = 64) -> Service:
    return service(asked, rate_per_s, slots=slots, settings=SETTINGS, step=STEP)


def test_an_idle_replica_answers_in_the_time_of_its_steps() -> None:
    alone = speed(
        dense(),
        H100,
        unmeasured(dense(), H100, "bf16"),
        layout=Layout(),
        settings=SETTINGS,
        requests=CHAT,
        slots=64,
    )
    idle = at(0.0)
    assert idle.ttft_s == idle.ttft_p95_s == pytest.approx(alone.ttft_s)
    assert idle.token_s == pytest.approx(alone.token_s)


def test_littles_law_holds() -> None:
    found = at(2.0)
    assert found.running == pytest.approx(2.0 * CHAT.output_tokens * found.token_s, rel=1e-6)
    assert found.output_tokens_per_s == 2.0 * CHAT.output_tokens


def test_beyond_its_capacity_it_keeps_up_no_more() -> None:
    most = capacity_per_s(CHAT, slots=64, settings=SETTINGS, step=STEP)
    assert isfinite(at(0.98 * most).token_s)
    assert at(1.02 * most).ttft_s == inf
    assert at(1.02 * most).token_s == inf


def test_a_replica_without_a_slot_serves_nobody() -> None:
    assert at(0.1, slots=0).ttft_s == inf
    assert capacity_per_s(CHAT, slots=0, settings=SETTINGS, step=STEP) == 0


def test_a_step_of_fixed_length_gives_the_numbers_of_the_textbook() -> None:
    """1 ms a step: 250 tokens take 0.25 s, so that 10 a second keep 2.5 running; capacity is slots / 0.25 s."""

    def fixed(_: Sequence[Chunk]) -> float:
        return 1e-3

    found = service(CHAT, 10.0, slots=64, settings=SETTINGS, step=fixed)
    assert found.running == pytest.approx(2.5)
    assert found.token_s == pytest.approx(1e-3)
    assert capacity_per_s(CHAT, slots=64, settings=SETTINGS, step=fixed) == pytest.approx(64 / 0.25)


def test_long_prompts_leave_room_for_fewer_answers() -> None:
    assert usable_slots(CHAT, slots=10_000, settings=replace(SETTINGS, max_sequences=10_000)) == 8_192 // 5


def test_a_prompt_is_read_in_steps() -> None:
    assert prompt_chunks(5, 2) == [
        Chunk(new_tokens=2, context_tokens=0),
        Chunk(new_tokens=2, context_tokens=2),
        Chunk(new_tokens=1, context_tokens=4),
    ]


@given(requests, st.floats(0.001, 50), st.floats(1.0, 4.0), st.integers(1, 256))
def test_more_requests_never_make_anyone_wait_less(asked: Requests, rate: float, factor: float, slots: int) -> None:
    few, many = at(rate, asked, slots), at(rate * factor, asked, slots)
    assert many.token_s >= few.token_s * (1 - 1e-9)
    assert many.ttft_s >= few.ttft_s * (1 - 1e-9)
    assert many.ttft_p95_s >= few.ttft_p95_s * (1 - 1e-9)


@given(requests, st.integers(1, 512))
def test_a_mixed_step_takes_no_less_than_its_decodes(asked: Requests, running: int) -> None:
    decode = Chunk(new_tokens=1, context_tokens=asked.context_tokens, count=running)
    assert mixed_step_s(asked, running, settings=SETTINGS, step=STEP) >= STEP([decode])
