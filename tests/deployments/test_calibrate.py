"""Do the loads tell the coefficients apart, and does the fit find them?"""

from dataclasses import asdict, replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.device_facts import BY_NAME
from cluster.model import Attention, Model, Part
from cluster.step_time import Coefficients, Layout, step_time
from cluster.step_work import work
from cluster.tensors import PARTS
from deployments.calibrate import Measured, Sought, fit
from deployments.calibration_loads import (
    DECODE_STEPS,
    Load,
    Point,
    decodes,
    decoding_step_s,
    joined,
    joined_step_s,
    prompts,
)
from deployments.engine_process import EngineFacts

L4 = BY_NAME["l4"]
FACTS = EngineFacts(
    dtype="bfloat16", max_model_len=4096, slots=64, step_tokens=2048, kv_tokens=100_000, vocabulary=32_000
)
engines = st.builds(
    EngineFacts,
    dtype=st.just("bfloat16"),
    max_model_len=st.integers(32, 32_768),
    slots=st.integers(1, 1024),
    step_tokens=st.integers(32, 16_384),
    kv_tokens=st.integers(64, 1_000_000),
    vocabulary=st.just(32_000),
)
coefficients = st.builds(
    Coefficients,
    compute=st.floats(0.2, 0.8),
    bandwidth=st.floats(0.4, 0.9),
    kv_bandwidth=st.floats(0.2, 0.9),
    step_s=st.floats(1e-3, 1e-2),
    sequence_s=st.floats(1e-5, 1e-3),
    token_s=st.floats(1e-6, 2e-5),
    attention=st.floats(0.3, 1.0),
)


def one_billion() -> Model:
    """A decoder of Llama's shape: 16 layers of width 2048."""
    weights = {"embedding": 128_256 * 2048, "attention": 16 * 10_485_760, "feed_forward": 16 * 50_331_648}
    return Model(
        architecture="LlamaForCausalLM",
        mixers=(Attention(heads=32, kv_heads=8, head_dim=64, value_dim=64),) * 16,
        layers=16,
        hidden=2048,
        vocabulary=128_256,
        context_tokens=131_072,
        parts={part: Part(bytes=2 * weights.get(part, 0), weights=weights.get(part, 0)) for part in PARTS},
        experts=None,
        neurons=8192,
        dtype_bits=16,
        kv_bits=16,
        tied=True,
        quantized=None,
    )


def seconds(point: Point, known: Coefficients) -> float:
    todo = work(one_billion(), point.chunks)
    return step_time(todo, L4, known, dtype="bf16", layers=16, layout=Layout()).seconds


def loads(facts: EngineFacts, prompt_tokens_per_s: float = 10_000.0) -> tuple[Load, ...]:
    return (*prompts(facts), *joined(facts, prompt_tokens_per_s), *decodes(facts, prompt_tokens_per_s))


def points(facts: EngineFacts) -> list[Point]:
    return [point for load in loads(facts) for point in load.points]


def sought(measured: list[Measured]) -> Sought:
    return Sought(measured, one_billion(), L4, dtype="bf16", layout=Layout(), kv_bits=16)


def as_measured(known: Coefficients, *, noise: float = 0.0, seed: int = 0) -> list[Measured]:
    source = Random(seed)
    return [
        Measured(point=point, seconds=seconds(point, known) * (1 + source.uniform(-noise, noise)))
        for point in points(FACTS)
    ]


@settings(max_examples=10)
@given(coefficients)
def test_the_fit_finds_what_made_the_times(known: Coefficients) -> None:
    """Not each coefficient is seen in every engine; what they say of loads between the measured ones is."""
    found = fit(sought(as_measured(known)))
    between = [point for point in points(replace(FACTS, max_model_len=1500, step_tokens=900)) if "32" not in point.name]
    for point in between:
        assert seconds(point, found) == pytest.approx(seconds(point, known), rel=0.03)


def test_the_fit_withstands_noise_and_a_disturbed_load() -> None:
    known = Coefficients(compute=0.5, bandwidth=0.7, kv_bandwidth=0.5, step_s=3e-3, sequence_s=1e-4, token_s=5e-6)
    measured = as_measured(known, noise=0.03)
    measured[3] = replace(measured[3], seconds=3 * measured[3].seconds)
    for residual, each in zip(sought(measured).residuals(fit(sought(measured))), measured, strict=True):
        assert residual.predicted_s == pytest.approx(seconds(each.point, known), rel=0.12)


@given(engines, st.floats(1.0, 1e6))
def test_every_load_is_one_that_the_engine_takes(facts: EngineFacts, prompt_tokens_per_s: float) -> None:
    names = [point.name for load in loads(facts, prompt_tokens_per_s) for point in load.points]
    assert len(set(names)) == len(names)
    for load in loads(facts, prompt_tokens_per_s):
        whole = [request.prompt_tokens + request.output_tokens for request in load.requests]
        assert len(whole) <= facts.slots
        assert max(whole) <= facts.max_model_len
        assert sum(whole) <= facts.kv_tokens or len(whole) == 1


@given(engines)
def test_steps_are_those_of_the_load_s_requests(facts: EngineFacts) -> None:
    for load in loads(facts):
        first = load.requests[0]
        for point in load.points:
            assert sum(chunk.count for chunk in point.chunks) <= len(load.requests)
            assert sum(chunk.count * chunk.new_tokens for chunk in point.chunks) <= facts.step_tokens
            for chunk in point.chunks:
                assert chunk.context_tokens + chunk.new_tokens <= first.prompt_tokens + first.output_tokens


@given(st.sampled_from([1, 5, 64]), st.integers(300, 4096))
def test_a_batch_melts_away_and_shows_each_smaller_one(slots: int, step_tokens: int) -> None:
    """As an engine would: prompts in order, one step for all that run."""
    facts = replace(FACTS, slots=slots, step_tokens=step_tokens)
    for load in decodes(facts, 10_000.0):
        times_s = stepped(load, facts)
        for point in load.points:
            assert point.seconds(times_s) == pytest.approx(1.0)
            last, batch = int(times_s[0][-1]), point.chunks[0].count
            exact = [step for step in range(last) if sum(t[0] < step + 0.5 < t[-1] for t in times_s) == batch]
            assert len(exact) >= DECODE_STEPS - 8


def stepped(load: Load, facts: EngineFacts) -> list[list[float]]:
    """Token times where each step takes a second: one token of each that decodes, and prompts as far as it has room."""
    times_s: list[list[float]] = [[] for _ in load.requests]
    unread = [request.prompt_tokens for request in load.requests]
    now_s = 0.0
    while any(len(times) < request.output_tokens for times, request in zip(times_s, load.requests, strict=True)):
        now_s += 1
        live = [number for number, request in enumerate(load.requests) if len(times_s[number]) < request.output_tokens]
        room = facts.step_tokens - sum(not unread[number] for number in live)
        for number in live:
            read = min(unread[number], room)
            unread[number] -= read
            room -= read
            if not unread[number]:
                times_s[number].append(now_s)
    return times_s


def test_an_engine_of_one_slot_is_measured_too() -> None:
    names = [point.name for point in points(replace(FACTS, slots=1, max_model_len=100))]
    assert names == ["prompt of 16", "prompt of 64", "1 decode at 32", "1 decode at 64"]


@pytest.mark.parametrize(("prompt_tokens_per_s", "longest"), [(10.0, 64), (1100.0, 512), (5000.0, 2048), (1e5, 2048)])
def test_a_slow_engine_gets_shorter_contexts(prompt_tokens_per_s: float, longest: int) -> None:
    """Half of the 4096 that the engine allows is the most."""
    first, last = (load.points[0].name for load in decodes(FACTS, prompt_tokens_per_s))
    assert first.endswith("decode at 32")
    assert last.endswith(f"decode at {longest}")


def test_a_lone_prompt_took_until_its_token() -> None:
    assert prompts(FACTS)[0].points[0].seconds([[0.25]]) == 0.25


def test_of_a_batch_only_those_steps_count_in_which_just_so_many_decode() -> None:
    """The first one's early tokens came while the second was read; at the end it is alone."""
    early, late = [1.0, 2.0, 3.0, 3.5, 4.0, 4.2, 4.4], [3.0, 3.5, 4.0]
    assert decoding_step_s([early, late], 2) == pytest.approx(0.5)
    assert decoding_step_s([early, late], 1) == pytest.approx(0.2)
    assert decoding_step_s([early, late], 3) is None


@given(st.floats(0.01, 1.0), st.integers(0, 2), st.integers(1, 12))
def test_prompts_that_joined_took_the_step_in_which_all_of_them_came(took_s: float, skipped: int, count: int) -> None:
    """In the step after the leader's or, where steps are planned ahead, one later; its other steps are short."""
    begun_s = 0.5 + 0.03 * skipped
    leader = [0.5 + 0.03 * step for step in range(skipped + 1)] + [begun_s + took_s + 0.03 * step for step in range(3)]
    others = [[begun_s + took_s + 0.0001 * number] for number in range(count)]
    assert joined_step_s([leader, *others]) == pytest.approx(took_s)


def test_prompts_of_several_steps_tell_nothing() -> None:
    assert joined_step_s([[0.5, 0.8, 1.0, 1.1], [0.8], [1.0]]) is None


@settings(max_examples=10)
@given(coefficients)
def test_all_that_is_found_lies_within_reason(known: Coefficients) -> None:
    assert all(value > 0 for value in asdict(fit(sought(as_measured(known, noise=0.1)))).values())
