"""What tensors does a checkpoint hold? From the headers of its safetensors files alone: no weights are loaded."""

import json
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

PartName = Literal["embedding", "head", "attention", "feed_forward", "experts", "norms", "scales", "other"]
"""experts: routed ones; those that all tokens use, and the router, are feed_forward."""
PARTS: tuple[PartName, ...] = get_args(PartName)

BITS = {"F4": 4, "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16}
BITS |= {"U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8}
"""By safetensors' word for a dtype."""
DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
"""torch's words for what weights are computed in."""

SCALES = {
    "weight_scale",
    "weight_zero_point",
    "weight_shape",
    "weight_g_idx",
    "weight_global_scale",
    "weight_scale_inv",
}
SCALES |= {"input_scale", "input_zero_point", "output_scale", "q_scale", "k_scale", "v_scale"}
SCALES |= {"scales", "qzeros", "g_idx", "gate_up_proj_scales", "down_proj_scales"}
WORDS: dict[PartName, set[str]] = {
    "embedding": {
        "embed_tokens",
        "embed_positions",
        "embed_in",
        "embeddings",
        "wte",
        "wpe",
        "word_embeddings",
        "tok_embeddings",
    },
    "head": {"lm_head", "embed_out"},
    "attention": {"self_attn", "self_attention", "attention", "attn", "linear_attn", "mamba", "mixer"},
    "feed_forward": {"mlp", "feed_forward", "ffn", "block_sparse_moe", "shared_mlp", "fc1", "fc2"},
}
SENSES = {"vision_tower", "vision_model", "visual", "vision_embed_tokens", "multi_modal_projector", "audio_tower"}
"""Eyes and ears: their layers are named like the decoder's."""
DRAFTS = {"mtp", "mtp_layers"}
"""Multi-token prediction: it stays on disk unless the engine speculates with it."""
MIXER_MAPS = {"up_proj", "down_proj", "gate", "shared_experts"}
"""What is a feed-forward network inside a `mixer` (Nemotron-H has one mixer in each layer, of any kind)."""
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
HEADER_BYTES = 100_000_000
"""The longest header that safetensors itself writes."""
PACKED = {"weight_packed": {"I32": 8, "U8": 2}, "qweight": {"I32": 8}}
PACKED |= {"gate_up_proj_blocks": {"U8": 2}, "down_proj_blocks": {"U8": 2}}
"""How many weights an element holds where nothing else says so: those of 4 bits."""


class UnreadableCheckpoint(ValueError):
    """Files that are no checkpoint; one line names the file and what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor as it lies on disk."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """safetensors' word, such as BF16."""
    weights: int
    """How many of the model's parameters it holds: packed ones count each, scales and shapes are none."""

    @property
    def bytes(self) -> int:
        return (prod(self.shape) * BITS[self.dtype] + 7) // 8

    @property
    def part(self) -> PartName:
        words = set(self.name.split("."))
        if words & (SENSES | DRAFTS):
            return "other"
        if self.name.rpartition(".")[2] in SCALES:
            return "scales"
        if any("norm" in word or word.startswith("ln_") for word in words):
            return "norms"
        if part := self._part_by_kind(words):
            return part
        for part, known in WORDS.items():
            if known & words:
                return part
        return "other"

    @property
    def layer(self) -> int | None:
        """The number of its layer; None outside of `model.layers`."""
        found = LAYER.fullmatch(self.name)
        return int(found[1]) if found else None

    @property
    def is_map(self) -> bool:
        """Whether it is the weight of a linear map inside a layer: what masks and quantization change."""
        inside = self.layer is not None and self.part in ("attention", "feed_forward", "experts")
        return inside and len(self.shape) == 2 and self.name.endswith((".weight", ".weight_packed"))

    def _part_by_kind(self, words: set[str]) -> PartName | None:
        """Where the word for a layer's half does not tell."""
        # Granite holds all experts of a layer in one tensor that does not say so.
        fused = "block_sparse_moe" in words and words & {"input_linear", "output_linear"}
        if "experts" in words or fused:
            return "experts"
        return "feed_forward" if "mixer" in words and words & MIXER_MAPS else None


def read(folder: Path) -> tuple[Tensor, ...]:
    """The tensors of a checkpoint in safetensors files, one or several, by name. Raises UnreadableCheckpoint."""
    files = _files(folder)
    if not files:
        raise UnreadableCheckpoint(f"{folder}: has no *.safetensors file")
    headers, shapes = dict[str, tuple[str, Sequence[int]]](), dict[str, tuple[int, ...]]()
    for path in files:
        _read_file(path, headers, shapes)
    try:
        return from_headers(headers, shapes)
    except UnreadableCheckpoint as error:
        raise UnreadableCheckpoint(f"{folder}: {error}") from None


def from_headers(
    headers: Mapping[str, tuple[str, Sequence[int]]], unpacked: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[Tensor, ...]:
    """The tensors of a model of which only dtypes (safetensors' words or torch's) and shapes are known, by name.

    `unpacked`: what tensors named *.weight_shape say, where they could be read. Raises UnreadableCheckpoint.
    """
    return tuple(_tensor(name, *headers[name], unpacked or {}) for name in sorted(headers))


def _tensor(name: str, dtype: str, shape: Sequence[int], unpacked: Mapping[str, tuple[int, ...]]) -> Tensor:
    word = DTYPES.get(dtype.removeprefix("torch."), dtype)
    if word not in BITS:
        raise UnreadableCheckpoint(f"{name}: dtype {dtype} is not known here")
    last = name.rpartition(".")[2]
    each = PACKED.get(last, {}).get(word, 1)
    said = unpacked.get(name.replace(".weight_packed", ".weight_shape"))
    weights = 0 if last in SCALES else prod(said) if said else prod(shape) * each
    return Tensor(name=name, shape=tuple(shape), dtype=word, weights=weights)


def _files(folder: Path) -> list[Path]:
    """As transformers finds them: others may lie beside them."""
    index, whole = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if whole.exists():
        return [whole]
    if not index.exists():
        return sorted(folder.glob("*.safetensors"))
    try:
        return sorted({folder / name for name in json.loads(index.read_text())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableCheckpoint(f"{index}: is no index of a checkpoint: {error!r}") from None


def _read_file(path: Path, headers: dict[str, tuple[str, Sequence[int]]], shapes: dict[str, tuple[int, ...]]) -> None:
    """Adds what one file holds: 8 bytes of length, little-endian, then JSON (github.com/huggingface/safetensors)."""
    try:
        with path.open("rb") as file:
            found = _header(file)
            start = file.tell()
            headers |= {name: (entry["dtype"], entry["shape"]) for name, entry in found.items()}
            for name, entry in found.items():
                if name.endswith(".weight_shape"):
                    file.seek(start + entry["data_offsets"][0])
                    shapes[name] = _integers(file, entry)
    except OSError as error:
        raise UnreadableCheckpoint(f"{path}: can't be read: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise UnreadableCheckpoint(f"{path}: can't be read: it is no safetensors file ({error})") from None


def _header(file: BinaryIO) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes")
    found = json.loads(file.read(length))
    found.pop("__metadata__", None)
    return found


def _integers(file: BinaryIO, entry: Mapping[str, Any]) -> tuple[int, ...]:
    letter = {"I64": "q", "I32": "i"}[entry["dtype"]]
    count = prod(entry["shape"])
    return struct.unpack(f"<{count}{letter}", file.read(count * struct.calcsize(f"<{letter}")))


def largest_float(tensors: Iterable[Tensor]) -> str | None:
    """The dtype of the largest tensor that is no integer."""
    floats = [tensor for tensor in tensors if tensor.dtype in DTYPES.values()]
    return max(floats, key=lambda tensor: tensor.bytes).dtype if floats else None
