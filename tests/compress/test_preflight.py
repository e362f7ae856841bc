"""A recipe that can't work is refused before anything is computed, line by line with what would."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from compress.forecast import after
from compress.preflight import Preflight, PreflightError, check, foresee, preflight, tensor_parallel_fits
from compress.quantize import GROUPS, group_size
from compress.recipe import Quantize, Recipe
from compress.shape import Shape
from tests.compress.decoders import decoder, decoders, machine, tensor

SMOLLM2 = decoder(layers=30, hidden=576, heads=9, kv_heads=3, head_dim=64, neurons=1536, vocabulary=49152)
AVX512 = "avx2 avx512f avx512_bf16"


def recipe(*steps: dict[str, Any], **fields: Any) -> Recipe:
    return Recipe.model_validate({"name": "smaller", "source": "model", "steps": steps} | fields)


def foreseen(
    *steps: dict[str, Any],
    shape: Shape = SMOLLM2,
    gpu: str = "",
    features: str = AVX512,
    available_bytes: int = 8 * 10**9,
) -> Preflight:
    gpus = (f"GPU 0: {gpu} (UUID: GPU-1)",) if gpu else ()
    here = machine(features=features, gpus=gpus, available_bytes=available_bytes)
    return foresee(recipe(*steps), shape, here, gpu_engine=True)


def test_a_recipe_that_works_is_told_in_figures_of_parent_and_result() -> None:
    found = foreseen({"do": "drop_layers", "layers": 6}, {"do": "quantize", "scheme": "w8a8"})
    assert not found.problems
    assert (found.parent.parameters, found.parent.kv_bytes_per_token) == (134_515_008, 23_040)
    assert found.result.kv_bytes_per_token == 23_040 * 24 // 30
    assert found.result.bytes < 0.55 * found.parent.bytes
    assert found.result.flops_per_token < found.parent.flops_per_token
    assert len(found.efforts) == 2
    assert found.seconds == sum(each.seconds for each in found.efforts)
    assert found.disk_bytes > 2 * found.result.bytes
    assert found.verdicts["w8a8"].ok


def test_four_bits_on_avx2_are_refused_and_eight_are_offered() -> None:
    found = foreseen({"do": "quantize", "scheme": "w4a16", "group": 64}, features="avx2")
    assert found.problems == (
        "steps[0].scheme: w4a16 can't be served on a CPU with AVX2: vLLM builds its 4-bit CPU kernel for AVX-512 only; "
        "scheme: w8a8 would work",
    )
    assert found.nearest == Quantize(do="quantize", scheme="w8a8")


def test_an_eight_bit_cache_on_avx2_is_refused_by_itself() -> None:
    found = foreseen({"do": "quantize", "scheme": "w8a8", "kv_cache": "fp8"}, features="avx2")
    assert found.problems == (
        "steps[0].kv_cache: kv_fp8 can't be served on a CPU with AVX2: "
        "vLLM's 8-bit cache on CPUs needs AVX-512 or AMX; kv_cache: auto would work",
    )


def test_int8_on_blackwell_is_refused_and_fp8_is_offered() -> None:
    (line,) = foreseen({"do": "quantize", "scheme": "w8a8"}, gpu="NVIDIA GeForce RTX 5090").problems
    assert line.startswith("steps[0].scheme: w8a8 can't be served on NVIDIA GeForce RTX 5090: ")
    assert line.endswith("; scheme: fp8 would work")


def test_hardware_that_vllm_does_not_run_on_refuses_dense_models_too() -> None:
    (line,) = foreseen({"do": "mask", "by": "wanda"}, gpu="Tesla V100-SXM2-16GB").problems
    assert line == "source: bfloat16 can't be served on Tesla V100-SXM2-16GB: vLLM needs compute capability 7.5"


def test_widths_that_a_kernel_lacks_are_a_problem() -> None:
    odd = decoder(hidden=144, neurons=288, head_dim=32)
    (line,) = foreseen({"do": "quantize", "scheme": "w4a16", "group": "channel"}, shape=odd).problems
    assert "its 4-bit kernel on CPUs needs widths that divide by 32, got [144]" in line


def test_masks_are_labelled_and_no_problem() -> None:
    found = foreseen({"do": "mask", "by": "magnitude"})
    assert not found.problems
    assert found.verdicts["mask"].note.startswith("no serving gain")
    assert found.result == found.parent


def test_a_group_is_judged_by_the_widths_after_earlier_steps() -> None:
    whole = foreseen({"do": "quantize", "scheme": "w4a16", "group": 192})
    narrow = {"do": "narrow_ffn", "share": 0.25, "multiple": 128}
    narrowed = foreseen(narrow | {"share": 0.17}, {"do": "quantize", "scheme": "w4a16", "group": 192})
    assert not whole.problems
    assert narrowed.problems == ("steps[1].group: group 192 does not divide the widths [576, 1280]; 64, 32 would",)


def test_every_step_that_can_not_be_done_gets_a_line() -> None:
    found = foreseen(
        {"do": "drop_layers", "layers": 30},
        {"do": "narrow_attention", "kv_heads": 3},
        {"do": "narrow_ffn", "share": 0.01},
        {"do": "quantize", "scheme": "w4a16", "group": 128},
    )
    assert found.problems == (
        "steps[0].layers: must be below the model's 30, got 30",
        "steps[1].kv_heads: must be below the model's 3, got 3",
        "steps[2].share: 0.01 leaves 1536 of 1536 neurons: 0.0417 would leave 1472",
        "steps[3].group: group 128 does not divide the widths [576, 1536]; 64, 32 would",
    )


def test_an_architecture_that_is_not_known_is_a_line_and_no_crash() -> None:
    gpt = decoder(architecture="GPT2LMHeadModel", tensors=(tensor("transformer.h.0.attn.c_attn.weight", (8, 24)),))
    found = foreseen({"do": "narrow_ffn", "share": 0.5}, shape=gpt)
    assert found.problems == ("steps[0].do: GPT2LMHeadModel has no list of layers at model.layers: no step knows it",)


def test_a_quantized_source_is_a_line_and_no_crash() -> None:
    quantized = after(SMOLLM2, Quantize(do="quantize", scheme="w4a16"))
    (line,) = foreseen({"do": "quantize", "scheme": "w8a8"}, shape=quantized).problems
    assert line.startswith("steps[0].do: what is quantized (compressed-tensors) can't be changed")


@pytest.mark.parametrize(
    ("step", "relief"),
    [
        ({"do": "quantize", "scheme": "w4a16", "by": "gptq"}, "by: rtn, fewer calibration.blocks or"),
        ({"do": "mask", "by": "magnitude", "recovery_steps": 9}, "recovery_steps: 0, fewer calibration.tokens or"),
        ({"do": "drop_layers", "layers": 1}, "a smaller model, fewer calibration.blocks or"),
    ],
)
def test_a_step_that_does_not_fit_into_memory_names_both_figures(step: dict[str, Any], relief: str) -> None:
    (line,) = foreseen(step, available_bytes=10**9).problems
    assert line.startswith(f"steps[0]: {step['do']} needs about ")
    assert f"1.0 GB are free: {relief}" in line


@pytest.mark.parametrize(
    ("shape", "group", "fits"),
    [
        (SMOLLM2, None, (1, 3)),
        (SMOLLM2, 64, (1, 3)),
        (SMOLLM2, 128, ()),
        (decoder(heads=32, kv_heads=8, head_dim=128, hidden=4096, neurons=14336), 128, (1, 2, 4, 8, 16)),
        (decoder(heads=32, kv_heads=8, head_dim=128, hidden=4096, neurons=14336), None, (1, 2, 4, 8, 16, 32)),
        (decoder(heads=12, kv_heads=4, head_dim=64, neurons=1536), None, (1, 2, 4, 12)),
    ],
)
def test_tensor_parallel_splits_heads_neurons_and_whole_groups(
    shape: Shape, group: int | None, fits: tuple[int, ...]
) -> None:
    assert tensor_parallel_fits(shape, group) == fits


@given(decoders(), st.sampled_from(("w4a16", "w4a16_asym")), st.sampled_from(("auto", "channel", 16, *GROUPS)))
def test_what_preflight_calls_divisible_quantize_accepts(shape: Shape, scheme: Any, group: Any) -> None:
    step = {"do": "quantize", "scheme": scheme, "group": group}
    found = foreseen(step, shape=shape, gpu="NVIDIA Z9000", available_bytes=10**12)
    widths = sorted({part.shape[1] for part in shape.maps})
    if any(".group: " in line for line in found.problems):
        with pytest.raises(ValueError, match="quantize: "):
            group_size(recipe(step).steps[0], widths)  # pyright: ignore[reportArgumentType]
    else:
        size = group_size(recipe(step).steps[0], widths)  # pyright: ignore[reportArgumentType]
        assert size is None or all(width % size == 0 for width in widths)


@given(decoders(), st.integers(1, 5), st.integers(1, 5), st.floats(0.05, 0.9))
def test_a_result_is_never_larger_and_nothing_is_negative(shape: Shape, layers: int, heads: int, share: float) -> None:
    found = foreseen(
        {"do": "drop_layers", "layers": layers},
        {"do": "narrow_attention", "kv_heads": heads},
        {"do": "narrow_ffn", "share": share, "multiple": 4},
        shape=shape,
        available_bytes=10**12,
    )
    assert 0 < found.result.bytes <= found.parent.bytes
    assert 0 < found.result.kv_bytes_per_token <= found.parent.kv_bytes_per_token
    assert 0 < found.result.flops_per_token <= found.parent.flops_per_token
    assert all(each.seconds > 0 and each.memory_bytes > 0 for each in found.efforts)
    if not found.problems:
        assert found.result.bytes < found.parent.bytes
        assert 1 in found.tensor_parallel_fits


def checkpoint(folder: Path) -> Path:
    shape = decoder()
    save_file({part.name: np.zeros(part.shape, np.float16) for part in shape.tensors}, folder / "model.safetensors")
    config = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 384, "dtype": "float16"}))
    return folder


def test_a_checkpoint_in_a_folder_is_checked_by_its_headers(tmp_path: Path) -> None:
    found = check(recipe({"do": "drop_layers", "layers": 1}), checkpoint(tmp_path), machine(features=AVX512))
    assert found.parent.parameters == decoder().parameters
    assert found == preflight(recipe({"do": "drop_layers", "layers": 1}), tmp_path, machine(features=AVX512))


def test_a_recipe_with_problems_is_refused_with_all_of_them(tmp_path: Path) -> None:
    bad = recipe({"do": "drop_layers", "layers": 4}, {"do": "narrow_attention", "kv_heads": 2})
    with pytest.raises(PreflightError) as refused:
        check(bad, checkpoint(tmp_path), machine(features=AVX512))
    assert str(refused.value).splitlines() == [
        "steps[0].layers: must be below the model's 4, got 4",
        "steps[1].kv_heads: must be below the model's 2, got 2",
    ]


def test_a_distillation_is_foreseen_and_quantized_afterwards() -> None:
    found = foreseen(
        {"do": "narrow_ffn", "share": 0.25}, {"do": "distil"}, {"do": "quantize", "scheme": "w8a8"}, shape=SMOLLM2
    )
    assert not found.problems
    assert found.efforts[1].seconds > 10 * found.efforts[0].seconds


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"workers": 8}, "steps[0].workers: each takes a device of its own, this machine has 2 cores, got 8"),
        (
            {"student": {"layers": 30}},
            "steps[0].student.layers: must be below the model's 30, got 30",
        ),
        (
            {"top_k": 100_000},
            "steps[0].top_k: must be at most the model's vocabulary of 49152, got 100000",
        ),
    ],
)
def test_a_distillation_that_this_model_or_machine_does_not_allow_is_refused(fields: dict[str, Any], line: str) -> None:
    assert line in foreseen({"do": "distil"} | fields, available_bytes=10**12).problems
