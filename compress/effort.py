"""How much memory and how many seconds does a step take? Roughly: on the CPU, with the whole model in memory.

On a GPU the seconds are far fewer, and the same bytes pass through the machine's memory when the model is loaded.
"""

from dataclasses import dataclass

from cluster.tensors import BITS, Tensor
from compress.mask import ROWS
from compress.recipe import Distil, DropLayers, Edit, Mask, NarrowAttention, NarrowFfn, OnPolicy, Quantize, Slice, Step
from compress.shape import Shape
from compress.text import GATE_BLOCKS, GATE_TOKENS

PROCESS_BYTES = 1_400_000_000
"""Python with torch, transformers and llm-compressor, and what they do not give back (measured: up to 1.3 GB)."""
FLOPS_PER_S_PER_CORE = {"avx2": 3e10, "avx512": 5e10, "avx512_bf16": 1.5e11, "amx": 3e11, "arm": 3e10}
"""In forward passes, by CPU level: measured for avx512_bf16 (SmolLM2, 512 tokens, one core) and avx2, else assumed."""
UNCERTAINTY = 4.0
"""Seconds are right within this factor, more or less: memory speed, threads and other work are not known."""
FILE_BYTES_PER_S = 2e8
"""Reading, hashing and writing a checkpoint."""
COLUMN_S = 1.2e-4
"""GPTQ and SparseGPT go through the columns of a matrix in a Python loop (measured on small matrices)."""
SORT_S_PER_WEIGHT = 1e-7
AWQ_PASSES = 40
"""AWQ runs the parts of a layer again for each of 20 scales (llm-compressor's n_grid), about twice a forward pass."""
ACTIVATION_BYTES = 17
"""Kept for the backward pass: times hidden width, bytes of a value and layers, for each token (Korthikanti et al.,
arXiv 2205.05198, eq. 1: 34 bytes at 16 bits, without the attention scores that no fused kernel keeps)."""
PASSES = {"float32": 9, "bfloat16": 6}
"""What a block of a distillation takes, in forward passes at the speed above: three, each at a third or half of it
(measured with AMX, one core, blocks of 512 tokens: 75 GFLOP/s in float32, 120 in bfloat16, casts included)."""
TELL_S = 1e-7
"""vLLM ranks the whole vocabulary for each token that it tells of: times tokens and vocabulary (measured, one core)."""
READ_BYTES_PER_S = 1e10
"""What a core reads of a student's weights for each next token that it writes (assumed)."""
FLOAT = 4
"""Bytes of a float32, in which most methods work."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What one step takes."""

    memory_bytes: int
    seconds: float
    """Within a factor of UNCERTAINTY."""


def effort(shape: Shape, step: Step, text: Slice, flops_per_s: float) -> Effort:
    """For a step on a model of this shape (as it is before), with this much calibration text."""
    if isinstance(step, Distil):
        flops, work_bytes = _training_flops(shape, step), _workers_bytes(shape, step)
    else:
        flops, work_bytes = _flops(shape, step, text), _work_bytes(shape, step, text)
    gate_flops = GATE_BLOCKS * GATE_TOKENS * shape.flops_per_token(GATE_TOKENS)
    compute_s = (flops + gate_flops) / flops_per_s + _loops_s(shape, step)
    # The gate's logits of one block, as they come and in float32 with their softmax.
    gate_bytes = GATE_TOKENS * shape.vocabulary * (BITS[shape.dtype] // 8 + 2 * FLOAT)
    return Effort(
        memory_bytes=PROCESS_BYTES + shape.bytes + max(gate_bytes, work_bytes),
        seconds=3 * shape.bytes / FILE_BYTES_PER_S + compute_s,
    )


def _work_bytes(shape: Shape, step: Edit, text: Slice) -> int:
    """Beside the weights: what is seen of the text, and what the method keeps."""
    each = BITS[shape.dtype] // 8
    seen = text.blocks * text.tokens * shape.hidden * each
    logits = text.tokens * shape.vocabulary * each
    widest = max(shape.maps, key=lambda tensor: tensor.weights).weights
    match step:
        case DropLayers():
            return 3 * seen + logits
        case NarrowFfn():
            return 2 * seen + max(logits, _fitting(shape.neurons or 0, text))
        case NarrowAttention():
            return 2 * seen + max(logits, _fitting(shape.heads * shape.head_dim, text))
        case Mask(by="magnitude"):
            # Absolute values, their order in int64, and the places that stay: of the widest matrix.
            return max(widest * (each + 8 + 1), _recovery_bytes(shape, step, text)) + _weights(shape)
        case Mask(by="sparsegpt") | Quantize(by="gptq"):
            return 2 * seen + _hessians_bytes(shape) + 3 * FLOAT * widest
        case Quantize(by="awq"):
            return 6 * seen + 3 * FLOAT * widest
        case Quantize(smooth=0, kv_cache="auto"):
            return 3 * FLOAT * widest
        case _:
            return 2 * seen + 3 * FLOAT * widest


def _flops(shape: Shape, step: Edit, text: Slice) -> float:
    tokens = text.blocks * text.tokens
    forward = tokens * shape.flops_per_token(text.tokens)
    match step:
        case DropLayers():
            return forward
        case NarrowFfn():
            return 2 * forward + shape.layers * _fit_flops(shape.neurons or 0, shape.hidden, tokens)
        case NarrowAttention():
            return 2 * forward + shape.layers * _fit_flops(shape.heads * shape.head_dim, shape.hidden, tokens)
        case Mask(by="magnitude"):
            # A backward pass costs two forward passes (Kaplan et al., arXiv 2001.08361, section 2.1); float32 runs at
            # half the speed.
            return 2 * 3 * forward * step.rounds * step.recovery_steps * min(ROWS, text.blocks) / text.blocks
        case Mask(by="sparsegpt") | Quantize(by="gptq"):
            return 2 * forward + sum(_hessian_flops(tensor, tokens) for tensor in shape.maps)
        case Quantize(by="awq"):
            return AWQ_PASSES * forward
        case Quantize(smooth=0, kv_cache="auto"):
            return 0.0
        case _:
            return 2 * forward


def _loops_s(shape: Shape, step: Step) -> float:
    match step:
        case Mask(by="magnitude"):
            return step.rounds * _weights(shape) * SORT_S_PER_WEIGHT
        case Mask(by="sparsegpt") | Quantize(by="gptq"):
            return COLUMN_S * sum(tensor.shape[1] for tensor in shape.maps)
        case Distil(on_policy=OnPolicy(new_tokens=written)):
            return step.steps * written * FLOAT * shape.parameters / READ_BYTES_PER_S
        case Distil():
            return TELL_S * step.text.blocks * step.text.tokens * shape.vocabulary
        case _:
            return 0.0


def _fitting(width: int, text: Slice) -> int:
    """X^T X in float64, twice what is cut out of it, its factors, and one block of X in float32."""
    return 4 * 8 * width**2 + FLOAT * width * text.tokens


def _fit_flops(width: int, outputs: int, tokens: int) -> float:
    """X^T X in float32, and the solution for the outputs in float64, which runs at half the speed."""
    return 2 * tokens * width**2 + 2 * (2 / 3 * width**3 + 2 * outputs * width**2)


def _hessians_bytes(shape: Shape) -> int:
    """Of one layer's maps, float32 of in_features squared each, and two copies of the largest while it is inverted."""
    sizes = [FLOAT * tensor.shape[1] ** 2 for tensor in shape.maps if tensor.layer == shape.maps[0].layer]
    return sum(sizes) + 2 * max(sizes)


def _hessian_flops(tensor: Tensor, tokens: int) -> float:
    """2 X X^T, two Cholesky factors and an inverse, and the weights' updates (GPTQ, arXiv 2210.17323, section 3.3)."""
    rows, columns = tensor.shape
    return 2 * tokens * columns**2 + 4 / 3 * columns**3 + rows * columns**2


def _recovery_bytes(shape: Shape, step: Mask, text: Slice) -> int:
    """In float32: model, gradients, AdamW's two moments, what the backward pass needs, logits and their gradient."""
    if not step.recovery_steps:
        return 0
    tokens = min(ROWS, text.blocks) * text.tokens
    kept = tokens * (shape.layers * ACTIVATION_BYTES * shape.hidden + 3 * shape.vocabulary)
    return FLOAT * (shape.parameters + 3 * _weights(shape) + kept)


def _training_flops(shape: Shape, step: Distil) -> float:
    """Of the steps, and of the source's own pass, as if it were no larger: it is little."""
    tokens = _lesson_tokens(step)
    block = tokens * shape.flops_per_token(tokens)
    read = step.steps * step.batch_blocks
    return block * ((read if step.on_policy else step.text.blocks) + PASSES[step.precision] * read)


def _lesson_tokens(step: Distil) -> int:
    """Of what is learnt from at once: a block, or its beginning and what the student wrote."""
    asked = step.on_policy
    return asked.prompt_tokens + asked.new_tokens if asked else step.text.tokens


def _workers_bytes(shape: Shape, step: Distil) -> int:
    """Alone it trains in the process that was counted; several have one each."""
    each = _training_bytes(shape, step)
    return each if step.workers == 1 else step.workers * (PROCESS_BYTES + each)


def _training_bytes(shape: Shape, step: Distil) -> int:
    """One worker's, block after block, in float32: model, gradients, AdamW's two moments and what is read, which
    shards divide; what the backward pass needs, logits with log-probabilities, all others' and their gradients. On
    policy the source is there too, as if it were no larger, and all of a step's blocks at once.
    """
    tokens = _lesson_tokens(step) * (step.batch_blocks if step.on_policy else 1)
    kept = tokens * (shape.layers * ACTIVATION_BYTES * shape.hidden + 5 * shape.vocabulary)
    models = 6 if step.on_policy else 5
    return FLOAT * (models * shape.parameters // (step.workers if step.sharded else 1) + kept)


def _weights(shape: Shape) -> int:
    return sum(tensor.weights for tensor in shape.maps)
