"""What does a config.json say once its other words and the keys it leaves out are filled in?

A key may be left out where it equals the default of transformers' class for the model_type: those defaults are here
for what sizes follow from (transformers 5.10, src/transformers/models/*/configuration_*.py).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Config = Mapping[str, Any]

SYNONYMS = {
    "hidden_size": ("n_embd", "d_model"),
    "num_hidden_layers": ("n_layer", "num_layers", "n_layers"),
    "num_attention_heads": ("n_head", "n_heads"),
    "num_key_value_heads": ("num_kv_heads", "n_head_kv"),
    "max_position_embeddings": ("n_positions", "max_sequence_length", "model_max_length", "seq_length"),
    "intermediate_size": ("ffn_dim", "ffn_hidden_size", "n_inner"),
    "num_experts": ("num_local_experts", "n_routed_experts", "moe_num_experts"),
    "num_experts_per_tok": ("num_experts_per_token", "moe_topk", "moe_top_k"),
    "sliding_window_pattern": ("_sliding_window_pattern",),
    "dtype": ("torch_dtype",),
    "layer_types": ("layers_block_type",),
}
"""The word used here, and others for the same."""
COUNTS = {
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "intermediate_size",
    "intermediate_size_mlp",
    "moe_intermediate_size",
    "num_experts",
    "num_experts_per_tok",
    "kv_lora_rank",
    "sliding_window",
    "sliding_window_pattern",
    "max_window_layers",
    "attention_chunk_size",
    "no_rope_layer_interval",
    "full_attention_interval",
}
"""Keys of whole numbers; 0 and null say that there is no such thing."""

_QWEN_MOE = {"head_dim": 256, "num_attention_heads": 16, "num_key_value_heads": 2}
_DELTA = {
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "full_attention_interval": 4,
}
_MAMBA2 = {
    "mamba_n_heads": 128,
    "mamba_d_head": 64,
    "mamba_n_groups": 1,
    "mamba_d_state": 256,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
}
_MLA = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}

DEFAULTS: dict[str, dict[str, Any]] = {
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "mixtral": {"num_key_value_heads": 8, "num_experts": 8, "num_experts_per_tok": 2},
    "qwen2": {"use_sliding_window": False, "max_window_layers": 28},
    "qwen3": {"head_dim": 128, "use_sliding_window": False, "max_window_layers": 28},
    "qwen3_moe": {"use_sliding_window": False, "num_experts": 128, "num_experts_per_tok": 8},
    "gemma": {"head_dim": 256, "tie_word_embeddings": True},
    "gemma2": {"head_dim": 256, "sliding_window": 4096, "sliding_window_pattern": 2, "tie_word_embeddings": True},
    "gemma3_text": {
        "vocab_size": 262208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
        "tie_word_embeddings": True,
    },
    "deepseek_v2": _MLA,
    "deepseek_v3": {**_MLA, "num_experts": 256, "num_experts_per_tok": 8},
    "gpt_oss": {"head_dim": 64, "sliding_window": 128, "sliding_window_pattern": 2, "num_experts_per_tok": 4},
    "falcon": {
        "multi_query": True,
        "new_decoder_architecture": False,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    },
    "olmo3": {"sliding_window": 4096, "sliding_window_pattern": 4},
    "granitemoe": {"num_experts": 8, "num_experts_per_tok": 2},
    "llama4_text": {
        "vocab_size": 202048,
        "head_dim": 128,
        "num_key_value_heads": 8,
        "attention_chunk_size": 8192,
        "no_rope_layer_interval": 4,
        "num_experts": 16,
        "num_experts_per_tok": 1,
    },
    "cohere2": {"sliding_window": 4096, "sliding_window_pattern": 4, "tie_word_embeddings": True},
    "opt": {"tie_word_embeddings": True},
    "gpt2": {"tie_word_embeddings": True},
    "qwen3_next": {**_QWEN_MOE, **_DELTA, "num_experts": 512, "num_experts_per_tok": 10},
    "qwen3_5_text": {**_DELTA, "head_dim": 256, "num_attention_heads": 16, "num_key_value_heads": 4},
    "qwen3_5_moe_text": {**_QWEN_MOE, **_DELTA, "num_experts": 256, "num_experts_per_tok": 8},
    "mamba": {"state_size": 16, "conv_kernel": 4, "expand": 2, "tie_word_embeddings": True},
    "falcon_mamba": {"state_size": 16, "conv_kernel": 4, "expand": 2, "tie_word_embeddings": True},
    "mamba2": {"num_heads": 128, "head_dim": 64, "state_size": 128, "conv_kernel": 4, "expand": 2, "n_groups": 8},
    "nemotron_h": {
        "head_dim": 128,
        "num_key_value_heads": 8,
        "ssm_state_size": 128,
        "mamba_num_heads": 128,
        "mamba_head_dim": 64,
        "n_groups": 8,
        "conv_kernel": 4,
        "mamba_ssm_cache_dtype": "float32",
        "num_experts_per_tok": 2,
    },
    "bamba": {"num_key_value_heads": 8, **_MAMBA2},
    "jamba": {
        "num_key_value_heads": 8,
        "mamba_d_state": 16,
        "mamba_d_conv": 4,
        "mamba_expand": 2,
        "attn_layer_period": 8,
        "attn_layer_offset": 4,
        "num_experts": 16,
        "num_experts_per_tok": 2,
    },
    "granitemoehybrid": {**_MAMBA2, "num_experts": 8, "num_experts_per_tok": 2},
}
"""By the decoder's model_type, in the words used here."""
INNER = {"gemma3": "gemma3_text", "llama4": "llama4_text", "qwen3_5": "qwen3_5_text", "qwen3_5_moe": "qwen3_5_moe_text"}
"""The decoder's model_type where text_config does not say it."""


class UnknownModel(ValueError):
    """A config.json from which sizes do not follow; one line names the key, what it was and what is needed."""


def open_config(folder: Path) -> dict[str, Any]:
    """The fields of the config.json in a folder. Raises UnknownModel."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except OSError as error:
        raise UnknownModel(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except ValueError as error:
        raise UnknownModel(f"{path}: is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise UnknownModel(f"{path}: should be fields and values")
    return config


def decoder_fields(config: Config) -> dict[str, Any]:
    """The decoder's fields in one level, in the words used here, defaults among them. Raises UnknownModel."""
    inner = config.get("text_config")
    outer_type = str(config.get("model_type"))
    fields = dict(config)
    if isinstance(inner, Mapping):
        fields = {**config, **inner, "model_type": inner.get("model_type") or INNER.get(outer_type, outer_type)}
    for word, others in SYNONYMS.items():
        if fields.get(word) is None:
            fields[word] = next((fields[other] for other in others if fields.get(other) is not None), None)
    left_out = DEFAULTS.get(str(fields["model_type"]) if "model_type" in fields else "", {})
    # A key that says null has been said: sliding_window: null means no window.
    said = {word for word in (*config, *(inner or ())) if word in left_out}
    fields |= {word: value for word, value in left_out.items() if word not in said and not fields.get(word)}
    _check(fields)
    return fields


def count(fields: Config, key: str) -> int:
    """A whole number above 0. Raises UnknownModel."""
    found = fields.get(key)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        what = "is missing" if found is None else f"got {found!r}"
        raise UnknownModel(f"{key}: should be a whole number above 0, {what} (model_type {fields.get('model_type')})")
    return found


def _check(fields: Config) -> None:
    for key in sorted(COUNTS):
        value = fields.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise UnknownModel(
                f"{key}: should be a whole number, got {value!r} (model_type {fields.get('model_type')})"
            )
    if not isinstance(fields["layer_types"], list | None):
        raise UnknownModel(f"layer_types: should be a list of words, got {fields['layer_types']!r}")
