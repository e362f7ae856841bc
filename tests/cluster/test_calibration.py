"""Does a calibration survive its file, and does the right one speak for a model?"""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.calibration import (
    BadCalibration,
    Calibration,
    ModelIdentity,
    Residual,
    applying,
    from_json,
    quantile,
    scaled,
    to_json,
)
from cluster.step_time import Coefficients

SMALL = ModelIdentity(
    architecture="LlamaForCausalLM", parameters=135_000_000, layers=30, hidden=576, quantized=None, dtype="bf16"
)
LARGE = replace(SMALL, parameters=8_000_000_000, layers=32, hidden=4096)
COEFFICIENTS = Coefficients(compute=0.3, bandwidth=0.6, kv_bandwidth=0.4, step_s=0.004, sequence_s=2e-5, token_s=3e-6)
positive = st.floats(1e-9, 1e9)
residuals = st.lists(
    st.builds(Residual, point=st.text(max_size=9), measured_s=positive, predicted_s=positive), max_size=20
)


def run(**changes: Any) -> Calibration:
    whole = Calibration(
        device="l4",
        tensor=1,
        pipeline=1,
        model=SMALL,
        engine={"max_model_len": 2048, "enforce_eager": True, "kv_cache_dtype": "auto"},
        coefficients=COEFFICIENTS,
        residuals=(Residual(point="prompt of 16", measured_s=0.02, predicted_s=0.022),),
        checks=(),
        date="2026-11-24T18:00:00+00:00",
        versions={"vllm": "0.29.0"},
    )
    return replace(whole, **changes)


@given(residuals, st.builds(Coefficients, **dict.fromkeys(asdict(COEFFICIENTS), positive)), st.none() | st.text())
def test_a_file_gives_back_what_was_written(
    found: list[Residual], coefficients: Coefficients, quantized: str | None
) -> None:
    written = run(
        residuals=tuple(found),
        checks=tuple(found[:3]),
        coefficients=coefficients,
        model=replace(SMALL, quantized=quantized),
        tensor=2,
    )
    assert from_json(to_json(written)) == written


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 0}, r"format: should be 2, got 0: calibrate anew"),
        ({"device": 4}, r"device: should be text, got 4"),
        ({"tensor": True}, r"tensor: should be a whole number, got True"),
        ({"tensor": 1.5}, r"tensor: should be a whole number, got 1.5"),
        ({"residuals": {}}, r"residuals: should be a list, got \{\}"),
        ({"residuals": [{"point": "x", "measured_s": 1}]}, r"residuals\[0\].predicted_s: is missing"),
        ({"coefficients": asdict(COEFFICIENTS) | {"compute": 0}}, r"coefficients.compute: should be a number above 0"),
        ({"coefficients": asdict(COEFFICIENTS) | {"x": 1}}, r"coefficients.x: unknown field \(allowed: compute, "),
        ({"model": "tiny"}, r"model: should be an object, got 'tiny'"),
        ({"versions": {"vllm": 29}}, r"versions.vllm: should be text, got 29"),
        ({"dates": ""}, r"dates: unknown field"),
    ],
)
def test_a_wrong_file_is_told_which_field_and_what_is_allowed(change: dict[str, Any], told: str) -> None:
    with pytest.raises(BadCalibration, match=told):
        from_json(json.dumps(json.loads(to_json(run())) | change))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1}', '{"format": 1, "device": NaN}'])
def test_what_is_no_calibration_is_refused(text: str) -> None:
    with pytest.raises(BadCalibration):
        from_json(text)


def test_numbers_that_are_none_are_refused() -> None:
    for word in ("NaN", "Infinity", "-1"):
        with pytest.raises(BadCalibration, match=r"coefficients.compute: should be a number above 0"):
            from_json(to_json(run()).replace('"compute": 0.3', f'"compute": {word}'))


@given(residuals.filter(len), st.floats(0.01, 1.0))
def test_a_quantile_is_the_smallest_error_that_so_many_stay_within(found: list[Residual], share: float) -> None:
    error = quantile(found, share)
    within = sum(residual.error <= error for residual in found)
    less = sum(residual.error < error for residual in found)
    assert less < share * len(found) + 1e-9 <= within + 2e-9


def test_an_error_is_the_same_whichever_of_both_is_larger() -> None:
    for measured_s, predicted_s in ((1.0, 1.25), (1.25, 1.0)):
        assert Residual(point="", measured_s=measured_s, predicted_s=predicted_s).error == pytest.approx(0.25)


def test_the_very_model_comes_first_and_of_its_runs_the_newest() -> None:
    old, new = run(date="2026-01-01"), run(date="2026-02-01")
    other = run(model=LARGE, date="2026-03-01")
    applied = applying([old, other, new], device="l4", model=SMALL)
    assert applied is not None
    assert applied.calibration is new
    assert applied.is_exact
    assert applied.coefficients == COEFFICIENTS


def test_another_model_of_the_device_speaks_scaled() -> None:
    applied = applying([run()], device="l4", model=LARGE)
    assert applied is not None
    assert not applied.is_exact
    assert applied.coefficients.bandwidth == COEFFICIENTS.bandwidth
    assert applied.coefficients.step_s == pytest.approx(COEFFICIENTS.step_s * 32 / 30)
    assert applied.coefficients.token_s == pytest.approx(COEFFICIENTS.token_s * 32 / 30 * 4096 / 576)


def test_a_run_in_the_same_dtype_speaks_before_one_of_the_same_size() -> None:
    same_size = run(model=replace(LARGE, dtype="fp8"))
    same_dtype = run()
    applied = applying([same_size, same_dtype], device="l4", model=LARGE)
    assert applied is not None
    assert applied.calibration is same_dtype


def test_the_layout_that_was_measured_comes_before_another() -> None:
    split, whole = run(tensor=2, date="2026-02-01"), run(date="2026-01-01")
    applied = applying([split, whole], device="l4", model=SMALL)
    assert applied is not None
    assert applied.calibration is whole
    other = applying([whole], device="l4", model=SMALL, tensor=2)
    assert other is not None
    assert not other.is_exact


def test_another_device_says_nothing() -> None:
    assert applying([run()], device="l40s", model=SMALL) is None
    assert applying([], device="l4", model=SMALL) is None


def test_a_model_scaled_to_itself_stays() -> None:
    assert scaled(COEFFICIENTS, SMALL, SMALL) == COEFFICIENTS
