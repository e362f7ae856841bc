"""How many bytes do weights take once vLLM has loaded them? Of its parameters; its few buffers come on top."""

import re
from collections.abc import Iterable
from math import ceil

from cluster.model import Attention, Mixer, Model, Part, Recurrence
from cluster.tensors import DRAFTS, DTYPES, PARTS, SENSES, PartName, Tensor

VOCABULARY_MULTIPLE = 64
"""To which embedding and head are padded (vLLM 0.29, layers/vocab_parallel_embedding.py)."""
IN_FLOAT32 = ("A_log", ".mixer.A", "e_score_correction_bias")
"""Ends of names of what stays float32 whatever a model is computed in."""
ADDED_ONCE = re.compile(
    r"\.(o_proj|out_proj|down_proj|c_proj|dense|dense_4h_to_h|fc2)\.bias$"  # of maps split by input
    r"|\.experts\.down_proj_bias$"
    r"|\.(gate|router|router\.layer|shared_expert_gate)\.(weight|bias|e_score_correction_bias)$"
    r"|\.(q_a_proj|kv_a_proj_with_mqa)\.weight$"
    r"|\.(embed_positions|wpe)\.weight$"
)
"""Ends of names of what each device of a layer holds whole, beside norms."""
SPLIT_NORM = re.compile(r"\.(mixer|mamba)\.norm\.weight$")
"""Mamba-2's norm, which is as wide as its heads together."""
NUMBER = re.compile(r"(?:layers|h|blocks)\.(\d+)\.")


def parts(tensors: Iterable[Tensor], *, dtype_bits: int, layers: int, tied: bool) -> dict[PartName, Part]:
    """What each part of a checkpoint holds, on disk and loaded; what predicts further tokens is `other`."""
    by_name: dict[PartName, list[Tensor]] = {name: [] for name in PARTS}
    for tensor in tensors:
        by_name["other" if is_draft(tensor, layers) else tensor.part].append(tensor)
    return {
        name: _part(own, [tensor for tensor in own if not _is_left(tensor, layers, tied)], dtype_bits)
        for name, own in by_name.items()
    }


def is_draft(tensor: Tensor, layers: int) -> bool:
    """Whether it belongs to multi-token prediction: an engine leaves it on disk unless it speculates with it."""
    words = set(tensor.name.split("."))
    number = NUMBER.search(tensor.name)
    beyond = number is not None and int(number[1]) >= layers and not words & SENSES
    return beyond or bool(words & DRAFTS)


def loaded_bytes(model: Model, tensor_parallel: int = 1) -> int:
    """Parameters on each of the devices that layers are split over.

    Embedding and head are padded; maps whose heads are fewer than the devices are repeated. Exact for weights that
    are not quantized (tests/e2e/test_model_bytes.py), but for the biases of repeated maps.
    """
    own = sum(_on_device(part, name, model, tensor_parallel) for name, part in model.parts.items())
    return own + sum(_repeated_bytes(mixer, model, tensor_parallel) for mixer in model.mixers)


def _part(own: list[Tensor], kept: list[Tensor], dtype_bits: int) -> Part:
    return Part(
        bytes=sum(tensor.bytes for tensor in own),
        weights=sum(tensor.weights for tensor in kept),
        loaded_bytes=sum(_loaded(tensor, dtype_bits) for tensor in kept),
        whole_bytes=sum(_loaded(tensor, dtype_bits) for tensor in kept if _is_whole(tensor)),
    )


def _is_left(tensor: Tensor, layers: int, tied: bool) -> bool:
    """Whether it stays on disk: drafts, a head that is the embedding, what is computed anew."""
    computed = tensor.name.endswith(("inv_freq", ".attention.bias"))
    return is_draft(tensor, layers) or (tied and tensor.part == "head") or computed


def _is_whole(tensor: Tensor) -> bool:
    """Whether each device of a layer holds all of it."""
    if tensor.part == "norms":
        return not SPLIT_NORM.search(tensor.name)
    return ADDED_ONCE.search(tensor.name) is not None


def _loaded(tensor: Tensor, dtype_bits: int) -> int:
    if tensor.name.endswith(IN_FLOAT32):
        return tensor.weights * 4
    return tensor.weights * dtype_bits // 8 if tensor.dtype in DTYPES.values() and tensor.weights else tensor.bytes


def _on_device(part: Part, name: PartName, model: Model, devices: int) -> int:
    divided = part.engine_bytes - part.whole_bytes
    if name in ("embedding", "head"):
        padded = ceil(model.vocabulary / VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
        divided = divided * padded // model.vocabulary
    return part.whole_bytes + divided // devices


def _repeated_bytes(mixer: Mixer, model: Model, devices: int) -> int:
    """What a device holds of one layer's maps beyond its equal share."""
    match mixer:
        case Attention():
            heads = max(0.0, 1 - mixer.kv_heads / devices)
            weights = heads * (mixer.head_dim + mixer.value_dim) * model.hidden
        case Recurrence(groups=groups) if groups and groups % devices:
            (kernel, _), _ = mixer.states[0]
            channels = 2 * (devices - groups) * mixer.states[1][0][-1]
            # The map into them, and their convolution of one more than is kept, with its bias.
            weights = channels * (model.hidden + kernel + 2) / devices
        case _:
            return 0
    return round(weights * model.dtype_bits / 8)
