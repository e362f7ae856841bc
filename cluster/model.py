"""What is a decoder made of? Its weights by part, and what each layer keeps of the past."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from cluster.tensors import PartName


@dataclass(frozen=True, kw_only=True, slots=True)
class Attention:
    """Keys and values of every past token, each head's its own or shared by a group (MHA, GQA, MQA)."""

    heads: int
    kv_heads: int
    head_dim: int
    """Of queries and keys."""
    value_dim: int
    """Of values: mostly head_dim."""
    window_tokens: int | None = None
    """How many of the last tokens are looked at; None for all."""
    is_chunked: bool = False
    """Whether the window is the token's own chunk (Llama 4), not the tokens just before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentAttention:
    """One compressed vector of every past token, shared by all heads (MLA; DeepSeek-V2, arXiv 2405.04434)."""

    heads: int
    latent_rank: int
    """kv_lora_rank: what keys and values are made from."""
    rope_dim: int
    """The part of a key that carries its position, kept beside the latent."""
    nope_dim: int
    value_dim: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Recurrence:
    """A state of fixed size for each sequence (Mamba, Mamba-2, gated delta rule)."""

    heads: int
    """By which tensor parallelism splits it."""
    states: tuple[tuple[tuple[int, ...], int], ...]
    """Shape and bits of a value, of each array kept."""
    flops_per_token: int
    """Of the state's update and reading; its linear maps are among the weights."""
    groups: int = 0
    """Groups of heads that share inputs (Mamba-2's B and C, among the first array's channels); 0: no such thing."""

    @property
    def bytes(self) -> int:
        """Of one sequence's state in this layer."""
        return sum(prod(shape) * bits for shape, bits in self.states) // 8


Mixer = Attention | LatentAttention | Recurrence
"""How a layer lets tokens see what came before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Experts:
    """A feed-forward network of which each token uses a part (mixture of experts)."""

    total: int
    active: int
    """Experts that a token is sent to; shared ones, which all tokens use, count as dense."""
    layers: int
    """Layers that have them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What one part of the checkpoint holds."""

    bytes: int
    weights: int
    """Parameters, unpacked: of what an engine loads, so a head that is the embedding counts there alone."""
    loaded_bytes: int | None = None
    """As an engine holds them, all devices of a layer together; None: as on disk."""
    whole_bytes: int = 0
    """Of the loaded ones, what each device of a layer holds whole: norms, routers, biases that are added once."""

    @property
    def engine_bytes(self) -> int:
        """What an engine holds, all devices of a layer together."""
        return self.bytes if self.loaded_bytes is None else self.loaded_bytes


@dataclass(frozen=True, kw_only=True)
class Model:
    """A decoder's shape: all that bytes, operations and layouts are computed from."""

    architecture: str
    mixers: tuple[Mixer, ...]
    """One for each layer; a layer without one (Nemotron-H's feed-forward layers) has none here."""
    layers: int
    hidden: int
    vocabulary: int
    context_tokens: int
    """The longest context that config.json allows."""
    parts: Mapping[PartName, Part]
    experts: Experts | None
    neurons: int
    """Width of the dense feed-forward networks, or of one expert where there is no dense one."""
    dtype_bits: int
    """Of an activation."""
    kv_bits: int
    """Of a cached value, unless the engine is told otherwise."""
    tied: bool
    """Whether the head is the embedding."""
    quantized: str | None
    """The method by which the weights were quantized."""

    @property
    def weight_bytes(self) -> int:
        """Of all tensors on disk, without the files' headers."""
        return sum(part.bytes for part in self.parts.values())

    @property
    def parameters(self) -> int:
        return sum(part.weights for part in self.parts.values())

    @property
    def active_parameters(self) -> int:
        """Parameters that one token's forward pass touches: experts by the share that is active."""
        routed = self.parts["experts"].weights
        return self.parameters - routed + (routed * self.experts.active // self.experts.total if self.experts else 0)


def in_float32(model: Model) -> Model:
    """The model where an engine widens what is stored in 16 bits: weights and cache."""
    if model.dtype_bits == 32:
        return model
    parts = {name: replace(part, loaded_bytes=2 * part.engine_bytes) for name, part in model.parts.items()}
    return replace(model, parts=parts, dtype_bits=32, kv_bits=32)
