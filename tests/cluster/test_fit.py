"""A model fits where its weights, activations and one sequence's cache do; else what is missing and what helps."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cluster.device_facts import BY_NAME, DEVICES
from cluster.devices import Device
from cluster.engine_memory import default_settings, engine_memory
from cluster.fit import Fit, fit, remedies, smallest_fit
from cluster.layouts import layouts
from cluster.model import Model, Part
from cluster.step_time import Layout
from tests.cluster.shapes import dense, mixture, models

GIB = 2**30
H100, L4 = BY_NAME["h100"], BY_NAME["l4"]
LLAMA_70B = dense(layers=80, hidden=8_192, heads=64, neurons=28_672)


def on(device: Device, model: Model, *, context_tokens: int = 8_192, layout: Layout | None = None) -> Fit:
    settings = default_settings(device, context_tokens=context_tokens)
    return fit(model, device, layout=layout or Layout(), settings=settings)


def in_bits(model: Model, bits: int) -> Model:
    return replace(
        model,
        parts={name: Part(bytes=part.bytes * bits // 16, weights=part.weights) for name, part in model.parts.items()},
    )


def test_llama_8b_fits_on_one_h100_and_its_parts_add_up() -> None:
    found = on(H100, dense())
    memory = found.memory
    assert found.fits
    assert memory.weights_bytes / GIB == pytest.approx(14.96, abs=0.01)
    assert memory.usable_bytes == int(0.92 * H100.memory_bytes)
    spent = memory.weights_bytes + memory.activation_bytes + memory.runtime_bytes
    assert memory.kv_bytes + spent == memory.usable_bytes
    assert found.sequence_bytes == 8_192 * 131_072
    assert found.largest_batch == pytest.approx(memory.kv_bytes / found.sequence_bytes, rel=0.001)


def test_llama_70b_needs_two_h100_and_one_in_4_bits() -> None:
    alone = on(H100, LLAMA_70B)
    assert not alone.fits
    assert alone.missing_bytes == alone.sequence_bytes - alone.memory.kv_bytes
    assert on(H100, LLAMA_70B, layout=Layout(tensor=2)).fits
    settings = default_settings(H100, context_tokens=8_192)
    found = remedies(LLAMA_70B, H100, layout=Layout(), settings=settings, others=[("4-bit", in_bits(LLAMA_70B, 4))])
    assert [(remedy.change, str(remedy.layout)) for remedy in found] == [
        ("4-bit weights", "TP 1"),
        ("2 devices", "TP 2"),
    ]


def test_a_shorter_context_helps_where_the_weights_alone_fit() -> None:
    settings = default_settings(L4, context_tokens=131_072)
    found = remedies(dense(), L4, layout=Layout(), settings=settings)
    (shorter,) = [remedy for remedy in found if "context" in remedy.change]
    tokens = on(L4, dense(), context_tokens=131_072).largest_context
    assert shorter.change == f"a context of {tokens:,} tokens"
    assert on(L4, dense(), context_tokens=tokens).fits
    assert not on(L4, dense(), context_tokens=tokens + settings.block_tokens).fits


def test_what_fits_needs_no_remedy() -> None:
    settings = default_settings(H100, context_tokens=8_192)
    assert remedies(dense(), H100, layout=Layout(), settings=settings) == ()


def test_nothing_helps_where_no_number_of_devices_does() -> None:
    settings = default_settings(L4, context_tokens=8_192)
    assert smallest_fit(LLAMA_70B, L4, settings=settings, devices=2) is None


def test_a_cache_that_was_given_a_size_is_no_larger() -> None:
    settings = replace(default_settings(H100, context_tokens=8_192), cache_bytes=2 * GIB)
    assert fit(dense(), H100, layout=Layout(), settings=settings).largest_batch == pytest.approx(2, rel=0.01)


def test_activations_of_experts_are_those_of_the_experts_that_a_token_is_sent_to() -> None:
    settings = default_settings(H100, context_tokens=8_192)
    parts = [
        engine_memory(model, H100, layout=Layout(), settings=settings, loaded_bytes=0).activation_bytes
        for model in (mixture(), replace(mixture(), experts=None))
    ]
    hidden, neurons = 4_096, 14_336
    assert parts == [settings.batched_tokens * 2 * (4 * hidden + 3 * neurons * active) for active in (2, 1)]


@given(models(), st.sampled_from(DEVICES), st.integers(0, 2**37), st.integers(16, 65_536))
def test_a_plan_that_fits_still_fits_on_a_bigger_gpu(
    model: Model, device: Device, more_bytes: int, context_tokens: int
) -> None:
    settings = default_settings(device, context_tokens=min(context_tokens, model.context_tokens))
    bigger = replace(device, memory_bytes=device.memory_bytes + more_bytes)
    for layout in layouts(model, devices=4)[:4]:
        small, large = (fit(model, each, layout=layout, settings=settings) for each in (device, bigger))
        assert large.fits or not small.fits
        assert large.missing_bytes <= small.missing_bytes
        assert large.largest_batch >= small.largest_batch
        assert large.largest_context >= small.largest_context


@given(models(), st.sampled_from(DEVICES), st.integers(16, 65_536))
def test_a_shorter_context_never_takes_more(model: Model, device: Device, context_tokens: int) -> None:
    long = min(context_tokens, model.context_tokens)
    wide, narrow = (on(device, model, context_tokens=tokens) for tokens in (long, max(1, long // 2)))
    assert narrow.sequence_bytes <= wide.sequence_bytes
    assert narrow.fits or not wide.fits


@given(models(), st.sampled_from(DEVICES))
def test_the_largest_context_fits_and_the_smallest_layout_is_the_smallest(model: Model, device: Device) -> None:
    settings = default_settings(device, context_tokens=model.context_tokens)
    found = smallest_fit(model, device, settings=settings, devices=8)
    assume(found is not None)
    assert found is not None
    assert found.largest_context == model.context_tokens
    smaller = [layout for layout in layouts(model, devices=8) if layout.devices < found.layout.devices]
    assert not any(fit(model, device, layout=layout, settings=settings).fits for layout in smaller)
