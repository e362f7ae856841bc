"""What does a decoder's checkpoint consist of? From config.json and the file headers: no weights are loaded."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal, get_args

from safetensors import SafetensorError, safe_open

from deployments.file_errors import FileError

PartName = Literal["embedding", "head", "attention", "feed_forward", "norms", "scales", "other"]
PARTS: tuple[PartName, ...] = get_args(PartName)

BITS = {"F4": 4, "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16}
BITS |= {"U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8}
"""By safetensors' word for a dtype."""
DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}

SCALES = {
    "weight_scale",
    "weight_zero_point",
    "weight_shape",
    "weight_g_idx",
    "weight_global_scale",
    "weight_scale_inv",
}
SCALES |= {"input_scale", "input_zero_point", "output_scale", "q_scale", "k_scale", "v_scale"}
WORDS: dict[PartName, set[str]] = {
    "embedding": {"embed_tokens", "embed_positions", "embed_in", "wte", "wpe", "word_embeddings", "tok_embeddings"},
    "head": {"lm_head", "embed_out"},
    "attention": {"self_attn", "self_attention", "attention", "attn"},
    "feed_forward": {"mlp", "feed_forward", "ffn", "block_sparse_moe"},
}
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


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
        words = self.name.split(".")
        if words[-1] in SCALES:
            return "scales"
        if any("norm" in word or word.startswith("ln_") for word in words):
            return "norms"
        for part, known in WORDS.items():
            if known.intersection(words):
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
        inside = self.layer is not None and self.part in ("attention", "feed_forward")
        return inside and len(self.shape) == 2 and self.name.endswith((".weight", ".weight_packed"))


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder: its tensors and the counts that config.json gives them."""

    architecture: str
    tensors: tuple[Tensor, ...]
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    neurons: int | None
    """Width of the feed-forward networks; None where config.json has no intermediate_size."""
    dtype: str
    """What the weights are computed in, as safetensors' word."""
    kv_dtype: str
    tied: bool
    """Whether the head is the embedding."""
    quantized: str | None
    """The method by which the weights were quantized, such as compressed-tensors."""

    @property
    def bytes(self) -> int:
        """Of all tensors on disk, without the files' headers."""
        return sum(tensor.bytes for tensor in self.tensors)

    @property
    def parameters(self) -> int:
        """Weights, unpacked; scales do not count, a tied head counts once."""
        return sum(tensor.weights for tensor in self.tensors)

    @property
    def bytes_by_part(self) -> dict[PartName, int]:
        """Every part, in the order of PARTS; together they are `bytes`."""
        return {part: sum(tensor.bytes for tensor in self.tensors if tensor.part == part) for part in PARTS}

    @property
    def maps(self) -> tuple[Tensor, ...]:
        """The weights of the layers' linear maps; the shape of one that is not packed is (out, in)."""
        return tuple(tensor for tensor in self.tensors if tensor.is_map)

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token, all layers together: 2 * layers * kv_heads * head_dim * bytes of a value.

        At the checkpoint's own dtype; for full attention in every layer.
        """
        return 2 * self.layers * self.kv_heads * self.head_dim * BITS[self.kv_dtype] // 8

    def flops_per_token(self, context_tokens: int) -> int:
        """Of one token's forward pass over a context: 2 * weights of linear maps, the head among them, plus
        4 * context * heads * head_dim for each layer's attention (Chowdhery et al., PaLM, arXiv 2204.02311,
        appendix B, a third of its training count; Kaplan et al., arXiv 2001.08361, table 1).
        """
        embeddings = [tensor.weights for tensor in self.tensors if tensor.part == "embedding"]
        heads = [tensor.weights for tensor in self.tensors if tensor.part == "head"]
        head = max(embeddings if self.tied else heads, default=0)
        linear = head + sum(tensor.weights for tensor in self.maps)
        return 2 * linear + 4 * context_tokens * self.layers * self.heads * self.head_dim


def bytes_by_part(folder: Path) -> dict[PartName, int]:
    """What each part of a checkpoint weighs on disk, for every part. Raises FileError."""
    return read(folder).bytes_by_part


def read(folder: Path) -> Shape:
    """The shape of a checkpoint in safetensors files, one or several. Raises FileError."""
    config = _config(folder)
    tensors = _tensors(folder)
    heads = _count(config, folder, "num_attention_heads", "n_head")
    hidden = _count(config, folder, "hidden_size", "n_embd")
    neurons = config.get("intermediate_size")
    has_head = any(tensor.part == "head" for tensor in tensors)
    quantization = config.get("quantization_config") or {}
    dtype = _dtype(config, tensors)
    return Shape(
        architecture=next(iter(config.get("architectures") or ()), str(config.get("model_type"))),
        tensors=tensors,
        layers=_count(config, folder, "num_hidden_layers", "n_layer"),
        hidden=hidden,
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or hidden // heads,
        neurons=neurons if isinstance(neurons, int) else None,
        dtype=dtype,
        kv_dtype="F8_E4M3" if quantization.get("kv_cache_scheme") else dtype,
        tied=bool(config.get("tie_word_embeddings", not has_head)),
        quantized=quantization.get("quant_method"),
    )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except OSError as error:
        raise FileError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except ValueError as error:
        raise FileError(f"{path}: is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise FileError(f"{path}: should be fields and values")
    # Models that also see or hear keep their decoder's fields one level down.
    inner = config.get("text_config")
    return config | inner if isinstance(inner, dict) else config


def _count(config: dict[str, Any], folder: Path, *names: str) -> int:
    found = next((config[name] for name in names if config.get(name)), None)
    if not isinstance(found, int):
        raise FileError(f"{folder / 'config.json'}: {names[0]}: should be a whole number above 0, got {found!r}")
    return found


def _dtype(config: dict[str, Any], tensors: tuple[Tensor, ...]) -> str:
    """That of config.json, or else of the largest tensor that is no integer."""
    named = config.get("dtype") or config.get("torch_dtype")
    floats = [tensor for tensor in tensors if tensor.dtype in DTYPES.values()]
    return DTYPES.get(str(named)) or max(floats, key=lambda tensor: tensor.bytes, default=tensors[0]).dtype


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
        raise FileError(f"{index}: is no index of a checkpoint: {error!r}") from None


def _tensors(folder: Path) -> tuple[Tensor, ...]:
    files = _files(folder)
    if not files:
        raise FileError(f"{folder}: has no *.safetensors file")
    found = {name: (shape, dtype, values) for path in files for name, shape, dtype, values in _headers(path)}
    tensors = []
    for name, (shape, dtype, _) in sorted(found.items()):
        if dtype not in BITS:
            raise FileError(f"{folder}: {name}: dtype {dtype} is not known here")
        unpacked = found.get(name.replace(".weight_packed", ".weight_shape"), (shape, dtype, None))[2]
        weights = 0 if name.split(".")[-1] in SCALES else prod(unpacked or shape)
        tensors.append(Tensor(name=name, shape=shape, dtype=dtype, weights=weights))
    return tuple(tensors)


def _headers(path: Path) -> Iterator[tuple[str, tuple[int, ...], str, tuple[int, ...] | None]]:
    """Name, shape and dtype of each tensor in a file, and the values of those that only say a shape."""
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - the file is no mapping
                part = file.get_slice(name)
                says_shape = name.endswith(".weight_shape")
                values = tuple(int(value) for value in file.get_tensor(name)) if says_shape else None
                yield name, tuple(part.get_shape()), part.get_dtype(), values
    except (OSError, SafetensorError) as error:
        raise FileError(f"{path}: can't be read: {error}") from None
