"""What does a decoder's checkpoint consist of? From config.json and the file headers: no weights are loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from cluster import tensors as checkpoint
from cluster.config_keys import UnknownModel, open_config
from cluster.tensors import BITS, DTYPES, Tensor
from deployments.file_errors import FileError

PartName = Literal["embedding", "head", "attention", "feed_forward", "norms", "scales", "other"]
"""As reports tell them apart: experts are feed-forward networks."""
PARTS: tuple[PartName, ...] = get_args(PartName)


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
        return {part: sum(tensor.bytes for tensor in self.tensors if _part(tensor) == part) for part in PARTS}

    @property
    def maps(self) -> tuple[Tensor, ...]:
        """The weights of the layers' linear maps; the shape of one that is not packed is (out, in)."""
        return tuple(tensor for tensor in self.tensors if tensor.is_map)

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding, or of the head where that has more; 0 where there is neither."""
        return max((tensor.shape[0] for tensor in self.tensors if tensor.part in ("embedding", "head")), default=0)

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
    try:
        config = open_config(folder)
    except UnknownModel as error:
        raise FileError(str(error)) from None
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
    return DTYPES.get(str(named)) or checkpoint.largest_float(tensors) or tensors[0].dtype


def _tensors(folder: Path) -> tuple[Tensor, ...]:
    try:
        return checkpoint.read(folder)
    except checkpoint.UnreadableCheckpoint as error:
        raise FileError(str(error)) from None


def _part(tensor: Tensor) -> PartName:
    return "feed_forward" if tensor.part == "experts" else tensor.part
