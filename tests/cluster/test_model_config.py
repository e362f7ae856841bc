"""From config.json and headers alone: what each layer keeps, and how much there is of everything."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from cluster.config_keys import DEFAULTS, SYNONYMS, UnknownModel
from cluster.kv_cache import bytes_per_token
from cluster.layer_mixers import kinds, mixers
from cluster.loaded_weights import loaded_bytes
from cluster.model import Attention, LatentAttention, Recurrence
from cluster.model_config import describe, read
from cluster.tensors import UnreadableCheckpoint, from_headers
from tests.cluster.published import NAMES, published

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 100,
    "max_position_embeddings": 512,
    "torch_dtype": "bfloat16",
}


def windows(config: dict[str, Any]) -> list[int | None]:
    model = describe(LLAMA | config, ())
    return [mixer.window_tokens for mixer in model.mixers if isinstance(mixer, Attention)]


def complaint(config: dict[str, Any], headers: dict[str, Any] | None = None) -> str:
    with pytest.raises(UnknownModel) as refused:
        describe(config, from_headers(headers or {}))
    return str(refused.value)


@pytest.mark.parametrize("name", NAMES)
def test_published_models_have_the_figures_that_vllm_gives_them(name: str) -> None:
    known = published(name)
    model = known.model
    figures = {
        "weight_bytes": model.weight_bytes,
        "parameters": model.parameters,
        "loaded_bytes": loaded_bytes(model),
        "kv_bytes_per_token": bytes_per_token(model),
        "context_tokens": model.context_tokens,
    }
    assert figures == known.expected
    assert known.total_size in (None, model.weight_bytes)


@pytest.mark.parametrize(
    ("name", "billions", "active_billions"),
    [
        # https://arxiv.org/abs/2412.19437, abstract
        ("deepseek-v3", 671, 37),
        # https://arxiv.org/abs/2405.04434, appendix B
        ("deepseek-v2-lite", 15.7, 2.4),
        # https://arxiv.org/abs/2505.09388, section 2
        ("qwen3-30b-a3b", 30.5, 3.3),
        # https://arxiv.org/abs/2508.10925, table 1
        ("gpt-oss-20b", 20.9, 3.6),
        # https://arxiv.org/abs/2401.04088's larger sister, mistral.ai/news/mixtral-8x22b
        ("mixtral-8x22b", 141, 39),
        # https://arxiv.org/abs/2408.12570, abstract
        ("jamba-1.5-mini", 52, 12),
    ],
)
def test_active_parameters_are_near_what_the_makers_say(name: str, billions: float, active_billions: float) -> None:
    """Makers count the embedding or not: both readings are allowed."""
    model = published(name).model
    assert model.parameters / 1e9 == pytest.approx(billions, rel=0.01)
    embedding = model.parts["embedding"].weights
    readings = (model.active_parameters / 1e9, (model.active_parameters - embedding) / 1e9)
    assert min(abs(reading / active_billions - 1) for reading in readings) < 0.03


def test_layers_alternate_as_their_architecture_does() -> None:
    gemma3, gpt_oss = published("gemma-3-4b").model, published("gpt-oss-20b").model
    looks = [mixer.window_tokens for mixer in gemma3.mixers if isinstance(mixer, Attention)]
    assert looks[:6] == [1024] * 5 + [None]
    assert looks.count(None) == 5
    assert [mixer.window_tokens for mixer in gpt_oss.mixers if isinstance(mixer, Attention)] == [128, None] * 12


def test_a_window_that_is_switched_off_is_none() -> None:
    assert windows({"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": False}) == [None] * 4
    assert windows({"model_type": "mistral", "sliding_window": None}) == [None] * 4
    assert windows({"model_type": "mistral"}) == [4096] * 4
    using = {"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": True, "max_window_layers": 3}
    assert windows(using) == [None] * 3 + [64]


def test_cohere_looks_at_one_token_more() -> None:
    assert windows({"model_type": "cohere2"}) == [4097] * 3 + [None]


def test_llama_4_looks_into_chunks_and_every_fourth_layer_at_all() -> None:
    looks = [mixer for mixer in published("llama-4-scout").model.mixers if isinstance(mixer, Attention)]
    assert [(mixer.window_tokens, mixer.is_chunked) for mixer in looks[:4]] == [(8192, True)] * 3 + [(None, False)]
    without = {"model_type": "llama4_text", "attention_chunk_size": None}
    assert windows(without) == [None] * 4


def test_falcon_has_one_key_value_head_or_as_many_as_it_says() -> None:
    (few, *_), (many, *_), (new, *_) = (
        describe({**LLAMA, "model_type": "falcon", "num_key_value_heads": None, **more}, ()).mixers
        for more in (
            {},
            {"multi_query": False},
            {"new_decoder_architecture": True, "num_kv_heads": 2},
        )
    )
    assert [mixer.kv_heads for mixer in (few, many, new) if isinstance(mixer, Attention)] == [1, 4, 2]


def test_latent_attention_keeps_one_vector() -> None:
    (mixer, *others) = published("deepseek-v3").model.mixers
    assert isinstance(mixer, LatentAttention)
    assert (mixer.latent_rank, mixer.rope_dim, mixer.heads, len(others)) == (512, 64, 128, 60)


@pytest.mark.parametrize(
    ("name", "attention", "states", "state_bytes"),
    [
        # A conv of 3 x (8192 + 2 * groups * 128) and a state of 128 x 64 x 128.
        ("nemotron-h-8b", 4, 24, 3 * 10240 * 2 + 128 * 64 * 128 * 4),
        ("mamba-codestral-7b", 0, 64, 3 * 10240 * 2 + 128 * 64 * 128 * 2),
        ("granite-4.0-h-small", 4, 36, 3 * 8448 * 2 + 128 * 64 * 128 * 2),
        ("bamba-9b", 3, 29, 3 * 8448 * 2 + 128 * 64 * 128 * 2),
        ("jamba-1.5-mini", 4, 28, 3 * 8192 * 2 + 8192 * 16 * 2),
        ("qwen3-next-80b-a3b", 12, 36, 3 * 8192 * 2 + 32 * 128 * 128 * 2),
        ("qwen3.5-25b-a3b", 10, 30, 3 * 8192 * 2 + 32 * 128 * 128 * 4),
    ],
)
def test_hybrids_keep_states_where_they_have_no_attention(
    name: str, attention: int, states: int, state_bytes: int
) -> None:
    looks = published(name).model.mixers
    kept = [mixer for mixer in looks if isinstance(mixer, Recurrence)]
    assert (len(looks) - len(kept), len(kept)) == (attention, states)
    assert {mixer.bytes for mixer in kept} == {state_bytes}


def test_experts_are_counted_where_there_are_any() -> None:
    deepseek, scout = published("deepseek-v3").model, published("llama-4-scout").model
    assert deepseek.experts is not None
    assert (deepseek.experts.total, deepseek.experts.active, deepseek.experts.layers) == (256, 8, 58)
    assert (deepseek.neurons, scout.neurons) == (18432, 8192)
    assert published("llama-2-7b").model.experts is None


def test_what_predicts_further_tokens_is_on_disk_only() -> None:
    inside = {f"model.layers.{layer}.mlp.up_proj.weight": ("BF16", (128, 64)) for layer in range(4)}
    beyond = {"model.layers.4.mlp.up_proj.weight": ("BF16", (128, 64)), "mtp.norm.weight": ("BF16", (64,))}
    plain, drafting = (describe(LLAMA, from_headers(headers)) for headers in (inside, inside | beyond))
    assert drafting.parts["other"].bytes == 2 * (128 * 64 + 64)
    assert loaded_bytes(drafting) == loaded_bytes(plain)
    assert drafting.parameters == plain.parameters


def test_a_head_that_is_the_embedding_is_loaded_once_though_it_is_stored() -> None:
    gemma = published("gemma-2b")
    assert gemma.model.tied
    assert gemma.model.weight_bytes - loaded_bytes(gemma.model) == 256_000 * 2048 * 2


def test_models_that_see_are_their_decoder_and_something_other() -> None:
    medgemma = published("gemma-3-27b").model
    assert (medgemma.hidden, medgemma.layers, medgemma.vocabulary) == (5376, 62, 262_208)
    assert medgemma.parts["other"].weights == pytest.approx(423e6, rel=0.01)


def test_rotary_scaling_may_lengthen_the_context() -> None:
    yarn = {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}}
    assert describe(LLAMA | yarn, ()).context_tokens == 2048
    llama3 = {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64}}
    assert describe(LLAMA | llama3, ()).context_tokens == 512


def test_an_eight_bit_cache_is_asked_for_by_the_checkpoint() -> None:
    quantization = {"quant_method": "compressed-tensors", "kv_cache_scheme": {"num_bits": 8}}
    model = describe({**LLAMA, "quantization_config": quantization}, ())
    assert (model.kv_bits, model.dtype_bits, model.quantized) == (8, 16, "compressed-tensors")


def test_a_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    with pytest.raises(UnreadableCheckpoint, match=r"has no \*\.safetensors file"):
        read(tmp_path)
    save_file({"model.embed_tokens.weight": np.zeros((100, 64), np.float32)}, tmp_path / "model.safetensors")
    model = read(tmp_path)
    assert (model.tied, model.weight_bytes, model.parameters) == (True, 25_600, 6_400)
    # In 16 bits, with the vocabulary padded from 100 to 128.
    assert loaded_bytes(model) == 128 * 64 * 2


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=r"config\.json: no such file or directory$"):
        read(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UnknownModel, match=r"config\.json: should be fields and values$"):
        read(tmp_path)
    no_heads = {key: value for key, value in LLAMA.items() if key != "num_attention_heads"}
    whole = "should be a whole number above 0"
    assert complaint(no_heads) == f"num_attention_heads: {whole}, is missing (model_type llama)"
    assert complaint(LLAMA | {"hidden_size": 0}) == f"hidden_size: {whole}, got 0 (model_type llama)"
    big = "num_attention_heads: should be a whole number, got [4, 8] (model_type llama)"
    assert complaint(LLAMA | {"num_attention_heads": [4, 8]}) == big
    routed = {"model.layers.0.mlp.experts.0.up_proj.weight": ("BF16", (8, 8))}
    assert complaint(LLAMA, routed) == f"num_experts_per_tok: {whole}, is missing (model_type llama)"
    assert complaint(LLAMA | {"torch_dtype": "float8"}).startswith("dtype: should be one of bfloat16, ")
    odd = complaint(LLAMA | {"layer_types": ["full_attention", "hyena"] * 2})
    assert odd.startswith("layer_types: hyena is not known here (known: attention, ")
    assert complaint(LLAMA | {"layer_types": ["mamba"]}) == "layer_types: should name all 4 layers, names 1"


@given(
    st.dictionaries(st.sampled_from(sorted({*LLAMA, *SYNONYMS})), st.none() | st.integers(-1, 9) | st.text(max_size=3))
)
def test_whatever_a_config_says_the_answer_is_a_model_or_one_line(config: dict[str, Any]) -> None:
    try:
        layers = len(describe(LLAMA | config, ()).mixers)
    except UnknownModel as error:
        layers, text = None, str(error)
    else:
        text = ""
    assert "\n" not in text
    assert layers != 0


def test_defaults_are_those_of_transformers() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    for model_type, left_out in DEFAULTS.items():
        theirs = CONFIG_MAPPING[model_type]()
        for key, value in left_out.items():
            if key in ("sliding_window_pattern", "full_attention_interval", "no_rope_layer_interval"):
                continue
            names = (key, *SYNONYMS.get(key, ()))
            assert value in [getattr(theirs, name) for name in names if hasattr(theirs, name)], (model_type, key)


@pytest.mark.parametrize("model_type", ["gemma2", "gemma3_text", "gpt_oss", "cohere2", "olmo3", "llama4_text"])
def test_patterns_are_those_of_transformers(model_type: str) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    words = {"full_attention": "full", "sliding_attention": "window", "chunked_attention": "chunk"}
    theirs = CONFIG_MAPPING[model_type](num_hidden_layers=12).layer_types
    ours = kinds({**DEFAULTS[model_type], "model_type": model_type}, 12)
    assert [words[word] for word in theirs] == list(ours)


@pytest.mark.parametrize("name", ["qwen3-next-80b-a3b", "jamba-1.5-mini", "nemotron-h-8b", "granite-4.0-h-small"])
def test_a_state_costs_some_operations_for_each_of_its_values(name: str) -> None:
    states = [mixer for mixer in published(name).model.mixers if isinstance(mixer, Recurrence)]
    values = states[0].states[1][0]
    assert 5 <= states[0].flops_per_token / np.prod(values) <= 8
    assert mixers({"model_type": "llama", **LLAMA}, 4, 16)[0] == describe(LLAMA, ()).mixers[0]
