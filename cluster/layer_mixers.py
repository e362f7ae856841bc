"""With what does each layer look back? From the fields of config.json alone."""

from typing import Literal

from cluster.config_keys import Config, UnknownModel, count
from cluster.model import Attention, LatentAttention, Mixer, Recurrence

Kind = Literal["full", "window", "chunk", "state", "nothing"]
KINDS: dict[str, Kind] = {
    "attention": "full",
    "full_attention": "full",
    "sliding_attention": "window",
    "chunked_attention": "chunk",
    "linear_attention": "state",
    "mamba": "state",
    "mamba2": "state",
    "mlp": "nothing",
    "moe": "nothing",
    # Letters of Nemotron-H's hybrid_override_pattern.
    "M": "state",
    "*": "full",
    "-": "nothing",
    "E": "nothing",
}
"""By the words of layer_types."""


def mixers(fields: Config, layers: int, dtype_bits: int) -> tuple[Mixer, ...]:
    """One for each layer that has one. Raises UnknownModel."""
    found = [_mixer(kind, fields, dtype_bits) for kind in kinds(fields, layers)]
    return tuple(mixer for mixer in found if mixer is not None)


def layer_count(fields: Config) -> int:
    """num_hidden_layers, or what a list of layers is as long as. Raises UnknownModel."""
    listed = fields.get("hybrid_override_pattern") or fields.get("layer_types")
    return fields.get("num_hidden_layers") or len(listed or ()) or count(fields, "num_hidden_layers")


def kinds(fields: Config, layers: int) -> tuple[Kind, ...]:
    """How each layer looks back. Raises UnknownModel."""
    if listed := fields.get("hybrid_override_pattern") or fields.get("layer_types"):
        return _listed(listed, layers)
    if (states := _states(fields, layers)) is not None:
        return states
    if fields.get("attention_chunk_size"):
        return _chunks(fields, layers)
    if not fields.get("sliding_window") or fields.get("use_sliding_window") is False:
        return ("full",) * layers
    if pattern := fields.get("sliding_window_pattern"):
        return tuple("window" if (index + 1) % pattern else "full" for index in range(layers))
    first = fields.get("max_window_layers", 0) if fields.get("use_sliding_window") else 0
    return tuple("window" if index >= first else "full" for index in range(layers))


def _listed(listed: list[str] | str, layers: int) -> tuple[Kind, ...]:
    if len(listed) < layers:
        raise UnknownModel(f"layer_types: should name all {layers} layers, names {len(listed)}")
    if unknown := sorted(set(listed) - set(KINDS)):
        raise UnknownModel(f"layer_types: {', '.join(unknown)} is not known here (known: {', '.join(KINDS)})")
    return tuple(KINDS[word] for word in listed[:layers])


def _states(fields: Config, layers: int) -> tuple[Kind, ...] | None:
    """Where some or all layers keep a state of fixed size."""
    match fields.get("model_type"):
        case "mamba" | "mamba2" | "falcon_mamba":
            return ("state",) * layers
        case "jamba":
            period, offset = fields["attn_layer_period"], fields["attn_layer_offset"]
            return tuple("full" if index % period == offset else "state" for index in range(layers))
        case "bamba":
            attention = fields.get("attn_layer_indices") or ()
            return tuple("full" if index in attention else "state" for index in range(layers))
        case "granitemoehybrid":
            return ("state",) * layers
        case "qwen3_next" | "qwen3_5_text" | "qwen3_5_moe_text":
            every = fields["full_attention_interval"]
            return tuple("state" if (index + 1) % every else "full" for index in range(layers))
        case _:
            return None


def _chunks(fields: Config, layers: int) -> tuple[Kind, ...]:
    every = fields.get("no_rope_layer_interval") or layers + 1
    rotated = fields.get("no_rope_layers") or [int((index + 1) % every != 0) for index in range(layers)]
    return tuple("chunk" if rotates else "full" for rotates in rotated[:layers])


def _mixer(kind: Kind, fields: Config, dtype_bits: int) -> Mixer | None:
    if kind == "nothing":
        return None
    if kind == "state":
        return recurrence(fields, dtype_bits)
    if fields.get("kv_lora_rank"):
        return LatentAttention(
            heads=count(fields, "num_attention_heads"),
            latent_rank=count(fields, "kv_lora_rank"),
            rope_dim=count(fields, "qk_rope_head_dim"),
            nope_dim=count(fields, "qk_nope_head_dim"),
            value_dim=count(fields, "v_head_dim"),
        )
    heads = count(fields, "num_attention_heads")
    head_dim = fields.get("head_dim") or count(fields, "hidden_size") // heads
    window = {"window": "sliding_window", "chunk": "attention_chunk_size"}.get(kind)
    # Cohere's window counts the tokens before a token, not the token itself.
    own = int(kind == "window" and fields.get("model_type") == "cohere2")
    return Attention(
        heads=heads,
        kv_heads=_kv_heads(fields, heads),
        head_dim=head_dim,
        value_dim=head_dim,
        window_tokens=count(fields, window) + own if window else None,
        is_chunked=kind == "chunk",
    )


def _kv_heads(fields: Config, heads: int) -> int:
    if fields.get("model_type") == "falcon" and not fields.get("new_decoder_architecture"):
        return 1 if fields.get("multi_query") else heads
    return fields.get("num_key_value_heads") or heads


def recurrence(fields: Config, dtype_bits: int) -> Recurrence:
    """The state of a layer that has one, as vLLM keeps it. Raises UnknownModel.

    Operations on a value of the state: 5 in Mamba-2 (decay, input times B, sum, times C, sum; arXiv 2405.21060,
    section 7), one more in Mamba (the step size of each channel), 7 in the gated delta rule (decay, reading at k,
    correction, reading at q; arXiv 2412.06464, eq. 10). The convolution before it takes 2 for each of its weights.
    """
    if "linear_num_key_heads" in fields:
        return _delta(fields, dtype_bits)
    inner, heads, width, groups, state, kernel = _mamba_sizes(fields)
    channels = inner + 2 * groups * state if heads else inner
    shape = (heads, width, state) if heads else (inner, state)
    return Recurrence(
        heads=heads or inner,
        states=(((kernel - 1, channels), dtype_bits), (shape, _state_bits(fields, dtype_bits))),
        flops_per_token=(5 if heads else 6) * inner * state + 2 * kernel * channels,
        groups=groups,
    )


def _mamba_sizes(fields: Config) -> tuple[int, int, int, int, int, int]:
    """Inner width, heads (0: Mamba-1), a head's width, groups, state, kernel."""
    if fields.get("model_type") == "nemotron_h":
        heads, width = count(fields, "mamba_num_heads"), count(fields, "mamba_head_dim")
        groups, state = count(fields, "n_groups"), count(fields, "ssm_state_size")
        return heads * width, heads, width, groups, state, count(fields, "conv_kernel")
    prefix = "mamba_" if "mamba_d_state" in fields else ""
    names = (
        ("d_state", "d_conv", "n_heads", "d_head") if prefix else ("state_size", "conv_kernel", "num_heads", "head_dim")
    )
    state, kernel = count(fields, prefix + names[0]), count(fields, prefix + names[1])
    inner = int(fields[f"{prefix}expand"] * count(fields, "hidden_size"))
    if prefix + names[2] not in fields:
        return inner, 0, 0, 0, state, kernel
    heads, width = count(fields, prefix + names[2]), count(fields, prefix + names[3])
    return inner, heads, width, count(fields, f"{prefix}n_groups"), state, kernel


def _delta(fields: Config, dtype_bits: int) -> Recurrence:
    keys, values = count(fields, "linear_num_key_heads"), count(fields, "linear_num_value_heads")
    key_dim, value_dim = count(fields, "linear_key_head_dim"), count(fields, "linear_value_head_dim")
    kernel = count(fields, "linear_conv_kernel_dim")
    channels = 2 * keys * key_dim + values * value_dim
    state = (values, value_dim, key_dim)
    return Recurrence(
        heads=values,
        states=(((kernel - 1, channels), dtype_bits), (state, _state_bits(fields, dtype_bits))),
        flops_per_token=7 * values * value_dim * key_dim + 2 * kernel * channels,
    )


def _state_bits(fields: Config, dtype_bits: int) -> int:
    """Of the state itself, where config.json asks for another dtype than the model's."""
    named = fields.get("mamba_ssm_cache_dtype") or fields.get("mamba_ssm_dtype")
    return {"float32": 32, "float16": 16, "bfloat16": 16}.get(str(named), dtype_bits)
