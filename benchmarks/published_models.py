"""Which shapes have the models whose runs were measured, by their published config.json and safetensors headers?"""

from typing import Any

from cluster.model import Model
from cluster.model_config import describe
from cluster.tensors import from_headers

COMMON = {"dtype": "bfloat16", "tie_word_embeddings": False, "head_dim": 128}
CONFIGS: dict[str, dict[str, Any]] = {
    "Llama-3.1-8B": COMMON
    | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
    },
    "Qwen3-32B": COMMON
    | {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "num_hidden_layers": 64,
        "hidden_size": 5120,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "intermediate_size": 25600,
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
    },
    "Qwen3-30B-A3B": COMMON
    | {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_hidden_layers": 48,
        "hidden_size": 2048,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "vocab_size": 151936,
        "max_position_embeddings": 262144,
    },
}
INDEX_BYTES = {"Llama-3.1-8B": 16_060_522_496, "Qwen3-32B": 65_524_246_528, "Qwen3-30B-A3B": 61_064_245_248}
"""metadata.total_size of each model's model.safetensors.index.json on the Hugging Face Hub."""
NOMINAL_PARAMETERS = {"Llama-3.1-8B": 8e9, "Qwen3-32B": 32e9, "Qwen3-30B-A3B": 30e9}
"""As the names say, which is what many calculators are given."""


def published(name: str) -> Model:
    """One of CONFIGS as `headrace plan` reads it."""
    config = CONFIGS[name]
    return describe(config, from_headers({key: ("BF16", shape) for key, shape in _shapes(config).items()}))


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "lm_head.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    for number in range(config["num_hidden_layers"]):
        layer = _attention(config) | _feed_forward(config)
        shapes |= {f"model.layers.{number}.{key}.weight": shape for key, shape in layer.items()}
    return shapes


def _attention(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, wide = config["hidden_size"], config["num_attention_heads"] * config["head_dim"]
    narrow = config["num_key_value_heads"] * config["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (wide, hidden),
        "self_attn.k_proj": (narrow, hidden),
        "self_attn.v_proj": (narrow, hidden),
        "self_attn.o_proj": (hidden, wide),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    if config["model_type"].startswith("qwen3"):
        shapes |= {"self_attn.q_norm": (config["head_dim"],), "self_attn.k_norm": (config["head_dim"],)}
    return shapes


def _feed_forward(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden = config["hidden_size"]
    if "num_experts" not in config:
        return _gated("mlp", hidden, config["intermediate_size"])
    shapes: dict[str, tuple[int, ...]] = {"mlp.gate": (config["num_experts"], hidden)}
    for expert in range(config["num_experts"]):
        shapes |= _gated(f"mlp.experts.{expert}", hidden, config["moe_intermediate_size"])
    return shapes


def _gated(name: str, hidden: int, neurons: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.gate_proj": (neurons, hidden),
        f"{name}.up_proj": (neurons, hidden),
        f"{name}.down_proj": (hidden, neurons),
    }
