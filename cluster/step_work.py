"""What does one engine step have to do? Operations, bytes read and bytes sent, from the shape and the batch alone."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from cluster.model import Attention, LatentAttention, Mixer, Model, Recurrence


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """New tokens of one sequence in a step, after a context that is already cached. A decode has one."""

    new_tokens: float
    context_tokens: float
    """Tokens cached before; a mean where several sequences are told together."""
    count: float = 1
    """How many sequences of the step are like this one; a mean where many steps are told together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One step of one replica, all its devices together."""

    tokens: float
    sequences: float
    """Each has its next token sampled, or its prompt advanced."""
    linear_flops: float
    head_flops: float
    attention_flops: float
    weight_bytes: float
    """Of the weights that this step reads: experts that no token was sent to are not."""
    kv_bytes: float
    """Read of what is cached, and written."""
    reduced_bytes: float
    """Of one activation tensor of the whole step: what each all-reduce of tensor parallelism carries."""


def work(model: Model, chunks: Iterable[Chunk], *, kv_bits: int | None = None) -> Work:
    """What a step over these chunks does, by counting.

    Linear maps take 2 operations for each weight and token, attention 2 for each pair of tokens and each dimension of
    a key and of a value (Chowdhery et al., PaLM, arXiv 2204.02311, appendix B). The head is applied to one token of
    each sequence. Experts are taken to be chosen evenly: of E experts, n tokens with k each reach
    E * (1 - (1 - k/E)^n).
    """
    step = tuple(chunks)
    tokens = sum(chunk.new_tokens * chunk.count for chunk in step)
    sequences = sum(chunk.count for chunk in step)
    bits, kinds = kv_bits or model.kv_bits, _kinds(model.mixers)
    return Work(
        tokens=tokens,
        sequences=sequences,
        linear_flops=2.0 * tokens * _weights_per_token(model),
        head_flops=2.0 * sequences * head_weights(model),
        attention_flops=sum(layers * _attention_flops(mixer, chunk) for mixer, layers in kinds for chunk in step),
        weight_bytes=_weight_bytes(model, tokens),
        kv_bytes=sum(layers * _kv_bytes(mixer, chunk, bits) for mixer, layers in kinds for chunk in step),
        reduced_bytes=tokens * model.hidden * model.dtype_bits / 8,
    )


@lru_cache(maxsize=64)
def _kinds(mixers: tuple[Mixer, ...]) -> tuple[tuple[Mixer, int], ...]:
    """Each kind of layer and how many there are. Kept, since sizing asks for thousands of steps of one model."""
    return tuple(Counter(mixers).items())


def head_weights(model: Model) -> int:
    """Weights of the map from the last hidden state to the vocabulary."""
    return model.parts["embedding" if model.tied else "head"].weights


def _weights_per_token(model: Model) -> float:
    """Weights of the maps inside the layers that one token passes through."""
    dense = model.parts["attention"].weights + model.parts["feed_forward"].weights
    share = model.experts.active / model.experts.total if model.experts else 0.0
    return dense + share * model.parts["experts"].weights


def _weight_bytes(model: Model, tokens: float) -> float:
    loaded = {name: part.engine_bytes for name, part in model.parts.items()}
    routed = loaded["experts"]
    # Of the embedding only the tokens' rows are read, unless it is the head as well.
    unread = 0 if model.tied else loaded["embedding"]
    reached = 1 - (1 - model.experts.active / model.experts.total) ** tokens if model.experts else 0.0
    return sum(loaded.values()) - unread - routed + reached * routed


def _attention_flops(mixer: Mixer, chunk: Chunk) -> float:
    match mixer:
        case Attention():
            return (
                2.0
                * chunk.count
                * _pairs(chunk, mixer.window_tokens)
                * mixer.heads
                * (mixer.head_dim + mixer.value_dim)
            )
        case LatentAttention():
            # A decode works on the latent itself (keys absorbed), a prefill on the keys and values made from it.
            absorbed = 2 * mixer.latent_rank + mixer.rope_dim
            expanded = mixer.nope_dim + mixer.rope_dim + mixer.value_dim
            each = absorbed if chunk.new_tokens == 1 else expanded
            return 2.0 * chunk.count * _pairs(chunk, None) * mixer.heads * each
        case Recurrence():
            return float(chunk.count * chunk.new_tokens * mixer.flops_per_token)


def _pairs(chunk: Chunk, window_tokens: int | None) -> float:
    """Pairs of a new token and one it looks at, itself among them."""
    new, context = chunk.new_tokens, chunk.context_tokens
    if window_tokens is None:
        return new * context + new * (new + 1) / 2
    growing = min(new, max(0.0, window_tokens - context))
    return growing * context + growing * (growing + 1) / 2 + (new - growing) * window_tokens


def _kv_bytes(mixer: Mixer, chunk: Chunk, bits: int) -> float:
    match mixer:
        case Attention():
            seen = chunk.context_tokens + chunk.new_tokens
            if mixer.window_tokens is not None:
                seen = min(seen, mixer.window_tokens + chunk.new_tokens)
            values = mixer.kv_heads * (mixer.head_dim + mixer.value_dim)
        case LatentAttention():
            seen = chunk.context_tokens + chunk.new_tokens
            values = mixer.latent_rank + mixer.rope_dim
        case Recurrence():
            # Read once and written once, whatever the number of new tokens.
            return 2.0 * chunk.count * mixer.bytes
    return chunk.count * (seen + chunk.new_tokens) * values * bits / 8
