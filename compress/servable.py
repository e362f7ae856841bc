"""Can vLLM serve a scheme on this hardware, and which scheme comes nearest if not? A table for NVIDIA GPUs and CPUs.

From vLLM 0.29.0: `schemes` below is vllm/model_executor/layers/quantization/compressed_tensors/schemes, `kernels` is
vllm/model_executor/kernels/linear, `attention` is vllm/v1/attention/backends. What was run: avx2 (emulated) and
avx512_bf16; all else was read in its source. AMD and Intel GPUs are left out.
"""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from cluster.inventory import Machine
from compress.recipe import Quantize
from compress.shape import Shape

Scheme = Literal["bfloat16", "float16", "float32", "mask", "w8a8", "w8a16", "w4a16", "w4a16_asym", "fp8", "kv_fp8"]
"""kv_fp8: the key-value cache in 8-bit floats, beside one of the others; mask: zeros among dense weights."""
Column = Literal[
    "old_cpu", "arm", "avx2", "avx512", "avx512_bf16", "amx",
    "7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0", "unknown_gpu",
]  # fmt: skip
"""A CPU's level, or a GPU's compute capability."""
COLUMNS: tuple[Column, ...] = get_args(Column)
CPUS: tuple[Column, ...] = COLUMNS[: COLUMNS.index("7.0")]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether vLLM serves something, and what to know about it."""

    ok: bool
    reason: str = ""
    """Why not."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What vLLM chooses its kernels by."""

    name: str
    column: Column


def _no(reason: str) -> Verdict:
    return Verdict(ok=False, reason=reason)


def _yes(note: str = "") -> Verdict:
    return Verdict(ok=True, note=note)


def _row(others: Verdict, given: dict[Column, Verdict]) -> dict[Column, Verdict]:
    """One scheme's verdicts: those given, and for the other columns the first one."""
    # docs/getting_started/installation/gpu.cuda.inc.md; vllm/platforms/cpu.py has no library below AVX2.
    ends: dict[Column, Verdict] = {
        "old_cpu": _no("vLLM needs AVX2, or NEON on ARM"),
        "7.0": _no("vLLM needs compute capability 7.5"),
        "unknown_gpu": _yes("this GPU is not in the table: the engine will tell"),
    }
    row: dict[Column, Verdict] = dict.fromkeys(COLUMNS, others)
    return row | given | ends


# vllm/platforms/cuda.py supported_dtypes; deployments/replica_arguments.py on AVX2.
_BF16 = _row(
    _yes(),
    {
        "avx2": _yes("served as float32: bfloat16 is emulated on this CPU"),
        "avx512": _yes("bfloat16 is emulated on this CPU"),
        "7.5": _yes("served as float16: bfloat16 needs compute capability 8.0"),
    },
)
# config/model.py _resolve_auto_dtype takes the platform's first dtype for float32 checkpoints.
_F32 = _row(
    _yes("served as bfloat16 unless engine.dtype says float32"), {"avx2": _yes(), "7.5": _yes("served as float16")}
)
_F16 = _row(_yes(), {"avx2": _yes("served as float32")})
_MASK = _row(_yes("no serving gain: vLLM stores and multiplies the zeros"), {})
# schemes/compressed_tensors_w8a8_int8.py (7.5); kernels/scaled_mm/cpu.py: oneDNN, AMX where there is. From 10.0 on
# csrc/libtorch_stable/quantization/w8a8/cutlass/c3x/scaled_mm_helper.hpp raises in the first forward pass, though
# kernels/scaled_mm/cutlass.py can_implement says yes (docs/features/quantization: "INT8 is not supported on >= 10.0").
_NO_INT8 = _no("vLLM has no int8 kernel from compute capability 10.0 on")
_W8A8 = _row(
    _yes(),
    {
        "avx2": _yes("decode is slower than dense at small batches; int8 loses precision on CPUs without VNNI"),
        "avx512": _yes("int8 loses precision on CPUs without VNNI"),
        "10.0": _NO_INT8,
        "12.0": _NO_INT8,
    },
)
# kernels/mixed_precision/cpu.py takes 4 bits only; on GPUs kernels/mixed_precision/marlin.py takes uint8b128 from 7.5.
_W8A16 = _row(_yes(), dict.fromkeys(CPUS, _no("vLLM has no kernel for 8-bit weights with 16-bit activations on CPUs")))
# csrc/cpu/torch_bindings.cpp builds cpu_gemm_wna16 for AVX-512, and not for AVX2 or ARM, though
# kernels/mixed_precision/cpu.py can_implement says yes; schemes/compressed_tensors_wNa16.py (7.5).
_SAVES = "slower than bfloat16 on this CPU: saves memory only"
_W4A16 = _row(
    _yes(),
    {
        "arm": _no("vLLM builds its 4-bit CPU kernel for AVX-512 only"),
        "avx2": _no("vLLM builds its 4-bit CPU kernel for AVX-512 only"),
        "avx512": _yes(_SAVES),
        "avx512_bf16": _yes(_SAVES),
        "amx": _yes("activations are rounded to int8 too unless VLLM_CPU_INT4_W4A8=0"),
    },
)
# schemes/compressed_tensors_w8a8_fp8.py (8.9), compressed_tensors_w8a16_fp8.py with kernels/scaled_mm/marlin.py (7.5);
# kernels/scaled_mm/pytorch.py on CPUs.
_FP8_ON_CPUS = _yes("a reference kernel on CPUs: saves memory only")
_FP8_WEIGHTS = _yes("weights only: activations stay 16-bit below compute capability 8.9")
_FP8 = _row(
    _yes(),
    {
        **dict.fromkeys(CPUS, _FP8_ON_CPUS),
        "7.5": _FP8_WEIGHTS,
        "8.0": _FP8_WEIGHTS,
        "8.6": _FP8_WEIGHTS,
    },
)
# attention/cpu_attn.py _get_attn_isa; attention/flashinfer.py from 8.0, triton_attn.py from 8.9.
_KV_FP8 = _row(
    _yes(),
    {
        "arm": _no("vLLM's 8-bit cache on CPUs needs AVX-512 or AMX"),
        "avx2": _no("vLLM's 8-bit cache on CPUs needs AVX-512 or AMX"),
        "7.5": _no("no attention kernel of vLLM reads an 8-bit cache below compute capability 8.0"),
    },
)
TABLE: dict[Scheme, dict[Column, Verdict]] = {
    "bfloat16": _BF16,
    "float16": _F16,
    "float32": _F32,
    "mask": _MASK,
    "w8a8": _W8A8,
    "w8a16": _W8A16,
    "w4a16": _W4A16,
    "w4a16_asym": _W4A16,
    "fp8": _FP8,
    "kv_fp8": _KV_FP8,
}

NEAREST: dict[str, tuple[Literal["w8a8", "w4a16", "fp8"], ...]] = {
    "w8a8": ("fp8", "w4a16"),
    "fp8": ("w8a8", "w4a16"),
    "w4a16": ("w8a8", "fp8"),
    "w4a16_asym": ("w8a8", "fp8"),
}
"""What to try instead of a scheme, in order."""

CAPABILITIES: tuple[tuple[str, Column], ...] = (
    (r"GB10|RTX PRO .*Blackwell|GeForce RTX 50\d0", "12.0"),
    (r"G?B[23]00|B100", "10.0"),
    (r"G?H[128]00|H20", "9.0"),
    (r"L4|L40S?|L20|Ada|GeForce RTX 40\d0", "8.9"),
    (r"A40|A10G?|A16|A2|RTX A\d000|GeForce RTX 30\d0", "8.6"),
    (r"A[18]00|A30", "8.0"),
    (r"T4|Quadro RTX|TITAN RTX|GeForce RTX 20\d0|GeForce GTX 16\d0", "7.5"),
    (r"V100|TITAN V|GV100", "7.0"),
)
"""By words of the driver's name for a GPU (developer.nvidia.com/cuda-gpus); 10.3 counts as 10.0, 12.1 as 12.0."""


def servable(scheme: Scheme, hardware: Hardware) -> Verdict:
    """What the table says."""
    return TABLE[scheme][hardware.column]


def nearest(step: Quantize, hardware: Hardware) -> Quantize | None:
    """The step, or what is nearest to it that vLLM serves on this hardware; None: nothing is."""
    cached = step.kv_cache if servable("kv_fp8", hardware).ok else "auto"
    if servable(step.scheme, hardware).ok:
        return step.model_copy(update={"kv_cache": cached})
    for scheme in NEAREST[step.scheme]:
        if servable(scheme, hardware).ok:
            by = "gptq" if step.by == "gptq" and scheme != "fp8" else "rtn"
            return Quantize(do="quantize", scheme=scheme, by=by, smooth=step.smooth, kv_cache=cached)
    return None


def kernel_limit(scheme: Scheme, hardware: Hardware, shape: Shape, group: int | None) -> str:
    """What the kernel that the table counts on asks of a model's widths and lacks here; empty: nothing."""
    if hardware.column in CPUS:
        return _cpu_limit(scheme, shape)
    # kernels/mixed_precision/marlin.py and triton_w4a16.py; attention/flashinfer.py get_supported_head_sizes.
    if scheme.startswith("w4") and group not in (None, 32, 64, 128, 256):
        return f"its kernels on GPUs know groups of 32, 64, 128 and 256, not of {group}"
    if scheme == "kv_fp8" and hardware.column in ("8.0", "8.6") and shape.head_dim not in (64, 128, 256, 512):
        return f"its 8-bit cache on this GPU needs a head_dim of 64, 128, 256 or 512, got {shape.head_dim}"
    return ""


def hardware(machine: Machine, *, gpu_engine: bool) -> Hardware:
    """What vLLM will run on: the weakest GPU where there is one and its build is for GPUs, else the CPU."""
    if machine.gpus and gpu_engine:
        columns: list[Column] = [_column_of(line) for line in machine.gpus]
        weakest = min(range(len(columns)), key=lambda index: COLUMNS.index(columns[index]))
        return Hardware(name=_gpu_name(machine.gpus[weakest]), column=columns[weakest])
    return _cpu(machine.cpu_features)


def _cpu(features: frozenset[str]) -> Hardware:
    """By torch.cpu's own questions, which platforms/cpu.py asks to choose a library."""
    levels = (
        ("asimd" in features, Hardware(name="an ARM CPU", column="arm")),
        (not features & {"avx2", "avx512f"}, Hardware(name="a CPU without AVX2", column="old_cpu")),
        ("avx512f" not in features, Hardware(name="a CPU with AVX2", column="avx2")),
        ("amx_tile" in features, Hardware(name="a CPU with AMX", column="amx")),
        ("avx512_bf16" in features, Hardware(name="a CPU with AVX-512 and bfloat16", column="avx512_bf16")),
    )
    return next((level for is_so, level in levels if is_so), Hardware(name="a CPU with AVX-512", column="avx512"))


def _gpu_name(line: str) -> str:
    """The name in a line of nvidia-smi -L, such as `GPU 0: NVIDIA L4 (UUID: ...)`."""
    return re.sub(r"^GPU \d+: | \(UUID.*$", "", line)


def _column_of(line: str) -> Column:
    name = _gpu_name(line)
    for pattern, column in CAPABILITIES:
        if re.search(rf"\b(?:{pattern})\b", name):
            return column
    return "unknown_gpu"


def _cpu_limit(scheme: Scheme, shape: Shape) -> str:
    # attention/cpu_attn.py get_supported_head_sizes and _get_attn_isa.
    if shape.head_dim not in (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512):
        return f"its attention on CPUs does not know a head_dim of {shape.head_dim}"
    if scheme == "kv_fp8" and shape.head_dim % 32:
        return f"its 8-bit cache on CPUs needs a head_dim that divides by 32, got {shape.head_dim}"
    # kernels/mixed_precision/cpu.py can_implement, for q, k and v (gate and up) as the one map that vLLM makes of them.
    heads = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    widths = {shape.hidden, shape.heads * shape.head_dim, heads, shape.neurons or 0, 2 * (shape.neurons or 0)}
    if scheme.startswith("w4") and (odd := sorted(width for width in widths if width % 32)):
        return f"its 4-bit kernel on CPUs needs widths that divide by 32, got {odd}"
    return ""
