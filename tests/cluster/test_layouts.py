"""A layout divides what tensor parallelism divides, and says why it does not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.layouts import layouts, refusals
from cluster.model import Model
from cluster.step_time import Layout
from tests.cluster.shapes import LATENT, STATE, dense, models


def test_llama_8b_divides_over_1_2_4_and_8_devices() -> None:
    assert [layout.tensor for layout in layouts(dense(), devices=8) if layout.pipeline == 1] == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("model", "tensor", "reason"),
    [
        (dense(), 3, "32 heads don't divide by 3"),
        (dense(hidden=1_920, heads=15, kv_heads=5, neurons=4_800), 3, "5 KV heads neither divide by 3 nor divide it"),
        (dense(neurons=1_001), 2, "1001 neurons don't divide by 2"),
        (replace(dense(), mixers=(LATENT,)), 3, "128 heads don't divide by 3"),
        (replace(dense(), mixers=(STATE,)), 3, "64 state heads don't divide by 3"),
    ],
)
def test_what_does_not_divide_is_named(model: Model, tensor: int, reason: str) -> None:
    assert reason in refusals(model, tensor)


def test_kv_heads_may_be_repeated_over_more_devices() -> None:
    assert refusals(dense(kv_heads=2), 8) == ()


def test_stages_begin_where_a_machine_ends() -> None:
    found = layouts(dense(layers=80), devices=16, per_machine=8)
    assert Layout(tensor=8, pipeline=2) in found
    assert not [layout for layout in found if layout.tensor > 8]


def test_a_layout_reads_as_people_write_it() -> None:
    assert [str(Layout(tensor=2)), str(Layout(tensor=8, pipeline=2))] == ["TP 2", "TP 8 x PP 2"]


@given(models(), st.integers(1, 32), st.integers(1, 8))
def test_every_layout_divides_and_is_no_larger_than_asked(model: Model, devices: int, per_machine: int) -> None:
    found = layouts(model, devices=devices, per_machine=per_machine)
    assert found[0] == Layout()
    assert list(found) == sorted(set(found), key=lambda layout: (layout.devices, layout.pipeline))
    for layout in found:
        assert layout.devices <= devices
        assert layout.tensor <= per_machine
        assert layout.pipeline <= model.layers
        assert not refusals(model, layout.tensor)
