"""More work never takes less, and what was measured lies within the factor that is promised."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from compress.effort import FLOPS_PER_S_PER_CORE, PROCESS_BYTES, UNCERTAINTY, Effort, effort
from compress.recipe import Slice, Step
from compress.shape import Shape
from tests.compress.decoders import decoder, decoders

STEP: TypeAdapter[Step] = TypeAdapter(Step)
ROUND = {"do": "quantize", "scheme": "w8a8"}
STEPS = [
    {"do": "drop_layers", "layers": 1},
    {"do": "narrow_ffn", "share": 0.5},
    {"do": "narrow_attention", "kv_heads": 1},
    {"do": "mask", "by": "magnitude"},
    {"do": "mask", "by": "magnitude", "recovery_steps": 10},
    {"do": "mask", "by": "wanda"},
    {"do": "mask", "by": "sparsegpt"},
    {"do": "distil", "steps": 2},
    {"do": "distil", "steps": 2, "on_policy": {"new_tokens": 16}},
    ROUND,
    {"do": "quantize", "scheme": "w8a8", "smooth": 0.5},
    {"do": "quantize", "scheme": "w8a8", "by": "gptq"},
    {"do": "quantize", "scheme": "w4a16", "by": "awq"},
    {"do": "quantize", "scheme": "fp8", "kv_cache": "fp8"},
]
SMOLLM2 = decoder(layers=30, hidden=576, heads=9, kv_heads=3, head_dim=64, neurons=1536, vocabulary=49152)
FLOPS_PER_S = 1.5e11


def of(fields: dict[str, Any], shape: Shape = SMOLLM2, **text: int) -> Effort:
    return effort(shape, STEP.validate_python(fields), Slice(**text), FLOPS_PER_S)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("fields", STEPS, ids=lambda fields: "-".join(map(str, fields.values())))
@settings(max_examples=25)  # of each step
@given(shape=decoders(), blocks=st.integers(1, 64), more=st.integers(1, 64))
def test_more_text_never_takes_less(fields: dict[str, Any], shape: Shape, blocks: int, more: int) -> None:
    less, longer = of(fields, shape, blocks=blocks), of(fields, shape, blocks=blocks + more)
    assert PROCESS_BYTES + shape.bytes < less.memory_bytes <= longer.memory_bytes
    assert 0 < less.seconds <= longer.seconds


@pytest.mark.parametrize("fields", STEPS, ids=lambda fields: "-".join(map(str, fields.values())))
def test_a_larger_model_takes_more(fields: dict[str, Any]) -> None:
    small, large = of(fields, decoder(layers=4)), of(fields, decoder(layers=8))
    assert small.memory_bytes < large.memory_bytes
    assert small.seconds < large.seconds


@pytest.mark.parametrize(
    ("fields", "measured_bytes", "measured_s"),
    [
        ({"do": "drop_layers", "layers": 3}, 1.08e9, 20),
        ({"do": "narrow_ffn", "share": 0.25}, 1.25e9, 44),
        ({"do": "narrow_attention", "kv_heads": 1}, 1.12e9, 30),
        ({"do": "quantize", "scheme": "w8a8"}, 1.15e9, 12),
        ({"do": "quantize", "scheme": "w4a16", "by": "gptq"}, 1.24e9, 78),
        ({"do": "mask", "by": "magnitude"}, 1.58e9, 15),
        ({"do": "mask", "by": "magnitude", "recovery_steps": 3}, 4.71e9, 53),
        ({"do": "mask", "by": "wanda"}, 1.15e9, 40),
    ],
)
def test_what_was_measured_on_one_core_lies_within_what_was_foreseen(
    fields: dict[str, Any], measured_bytes: float, measured_s: float
) -> None:
    """SmolLM2-135M, 12 blocks of 512 tokens, AVX-512 with bfloat16: peak resident memory and CPU seconds."""
    foreseen = of(fields)
    assert measured_bytes < foreseen.memory_bytes < measured_bytes + PROCESS_BYTES
    assert measured_s / UNCERTAINTY < foreseen.seconds < measured_s * UNCERTAINTY


def test_a_distillation_that_was_measured_lies_within_what_was_foreseen() -> None:
    """The narrowed sample model as examples/recipes/distilled.yaml trains it, with AMX: peak memory of the process that
    trains, and CPU seconds of it and of the source's engine.
    """
    narrow = decoder(layers=30, hidden=576, heads=9, kv_heads=3, head_dim=64, neurons=1152, vocabulary=49152)
    fields = {"do": "distil", "steps": 120, "batch_blocks": 2, "precision": "bfloat16"}
    foreseen = effort(narrow, STEP.validate_python(fields), Slice(), FLOPS_PER_S_PER_CORE["amx"])
    assert 4.55e9 < foreseen.memory_bytes < 4.55e9 + PROCESS_BYTES
    assert 1100 / UNCERTAINTY < foreseen.seconds < 1100 * UNCERTAINTY


def test_recovery_needs_the_optimizer_in_memory() -> None:
    alone = of({"do": "mask", "by": "magnitude"})
    recovered = of({"do": "mask", "by": "magnitude", "recovery_steps": 1})
    in_float32 = 4 * sum(part.weights for part in SMOLLM2.maps)
    assert recovered.memory_bytes - alone.memory_bytes > 3 * in_float32


def test_rounding_to_the_nearest_asks_no_text() -> None:
    assert of(ROUND, blocks=1) == of(ROUND, blocks=100)


@settings(max_examples=25)
@given(shape=decoders(), steps=st.integers(1, 50), workers=st.sampled_from([2, 4]))
def test_more_training_takes_longer_and_more_workers_more_memory_unless_they_share(
    shape: Shape, steps: int, workers: int
) -> None:
    def training(**fields: Any) -> Effort:
        return of({"do": "distil"} | fields, shape)

    alone = training(steps=steps)
    assert alone.seconds < training(steps=steps + 1).seconds
    many, sharded = (training(steps=steps, workers=workers, sharded=sharded) for sharded in (False, True))
    assert alone.memory_bytes < many.memory_bytes
    assert sharded.memory_bytes < many.memory_bytes
