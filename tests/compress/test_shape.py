"""A checkpoint's headers say all that its size, cache and arithmetic follow from."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from compress.report import Part
from compress.shape import PARTS, FileError, Shape, bytes_by_part, read
from tests.compress.decoders import decoder, decoders, tensor

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "dtype": "float16",
}
TENSORS = {
    "model.embed_tokens.weight": (10, 8),
    "lm_head.weight": (10, 8),
    "model.norm.weight": (8,),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.self_attn.q_norm.weight": (2,),
    "model.layers.0.mlp.gate_proj.weight": (24, 8),
}


def checkpoint(folder: Path, files: dict[str, dict[str, Any]] | None = None, **config: Any) -> Path:
    """A checkpoint in a folder: its files with their tensors."""
    for name, tensors in (files or {"model.safetensors": halves(TENSORS)}).items():
        save_file(tensors, folder / name)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    return folder


def halves(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    return {name: np.zeros(shape, np.float16) for name, shape in shapes.items()}


def complaint(folder: Path) -> str:
    with pytest.raises(FileError) as refused:
        read(folder)
    return str(refused.value).replace(f"{folder}", "FOLDER")


def test_every_tensor_counts_in_one_part(tmp_path: Path) -> None:
    shape = read(checkpoint(tmp_path))
    expected = {
        "embedding": 160,
        "head": 160,
        "attention": 128,
        "feed_forward": 384,
        "norms": 20,
        "scales": 0,
        "other": 0,
    }
    assert bytes_by_part(tmp_path) == expected
    assert shape.bytes == sum(expected.values())
    assert shape.parameters == shape.bytes // 2


def test_the_parts_are_those_of_the_report() -> None:
    assert get_args(Part.model_fields["part"].annotation) == PARTS


def test_several_files_are_one_checkpoint(tmp_path: Path) -> None:
    names = sorted(TENSORS)
    files = {
        f"model-{number}.safetensors": halves({name: TENSORS[name] for name in half})
        for number, half in enumerate((names[:3], names[3:]))
    }
    (tmp_path / "split").mkdir()
    (tmp_path / "whole").mkdir()
    assert read(checkpoint(tmp_path / "split", files)) == read(checkpoint(tmp_path / "whole"))


def test_files_that_the_index_leaves_out_do_not_count(tmp_path: Path) -> None:
    files = {"model-1.safetensors": halves(TENSORS), "consolidated.safetensors": halves({"tok_embeddings": (10, 8)})}
    checkpoint(tmp_path, files)
    index = {"weight_map": dict.fromkeys(TENSORS, "model-1.safetensors")}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert len(read(tmp_path).tensors) == len(TENSORS)


def test_what_lies_beside_a_single_file_does_not_count(tmp_path: Path) -> None:
    files = {"model.safetensors": halves(TENSORS), "other.safetensors": halves({"score.weight": (3, 3)})}
    assert len(read(checkpoint(tmp_path, files)).tensors) == len(TENSORS)


def test_packed_weights_count_as_many_as_they_hold(tmp_path: Path) -> None:
    base = "model.layers.0.mlp.down_proj"
    packed = {
        f"{base}.weight_packed": np.zeros((8, 3), np.int32),
        f"{base}.weight_scale": np.zeros((8, 1), np.float16),
        f"{base}.weight_zero_point": np.zeros((1, 1), np.int32),
        f"{base}.weight_shape": np.array([8, 20]),
        "model.layers.0.self_attn.k_scale": np.zeros(1, np.float16),
        "model.embed_tokens.weight": np.zeros((10, 8), np.float16),
    }
    shape = read(checkpoint(tmp_path, {"model.safetensors": packed}))
    assert shape.parameters == 8 * 20 + 10 * 8
    parts = {part: size for part, size in shape.bytes_by_part.items() if size}
    assert parts == {"embedding": 160, "feed_forward": 8 * 3 * 4, "scales": 16 + 4 + 16 + 2}


def test_a_quantized_checkpoint_says_so_and_its_cache_too(tmp_path: Path) -> None:
    quantization = {"quant_method": "compressed-tensors", "kv_cache_scheme": {"num_bits": 8}}
    shape = read(checkpoint(tmp_path, quantization_config=quantization))
    assert shape.quantized == "compressed-tensors"
    assert shape.kv_bytes_per_token == 2 * 1 * 2 * 2


def test_without_a_head_among_the_tensors_it_is_the_embedding(tmp_path: Path) -> None:
    bare = {name: shape for name, shape in TENSORS.items() if name != "lm_head.weight"}
    assert read(checkpoint(tmp_path, {"model.safetensors": halves(bare)})).tied
    assert not read(checkpoint(tmp_path)).tied


def test_older_configs_and_those_of_models_that_see_are_read_alike(tmp_path: Path) -> None:
    for name in ("plain", "nested", "old"):
        (tmp_path / name).mkdir()
    plain = read(checkpoint(tmp_path / "plain"))
    checkpoint(tmp_path / "nested")
    (tmp_path / "nested" / "config.json").write_text(json.dumps({"text_config": CONFIG}))
    assert read(tmp_path / "nested") == plain
    checkpoint(tmp_path / "old")
    old = {"n_layer": 1, "n_head": 4, "n_embd": 8, "torch_dtype": "float16", "architectures": ["GPT2LMHeadModel"]}
    (tmp_path / "old" / "config.json").write_text(json.dumps(old))
    shape = read(tmp_path / "old")
    assert (shape.layers, shape.heads, shape.kv_heads, shape.head_dim, shape.neurons) == (1, 4, 4, 2, None)


def test_what_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    assert complaint(tmp_path) == "FOLDER/config.json: no such file or directory"
    (tmp_path / "config.json").write_text("{")
    assert complaint(tmp_path).startswith("FOLDER/config.json: is no JSON: ")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert complaint(tmp_path) == "FOLDER: has no *.safetensors file"
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    assert complaint(tmp_path).startswith("FOLDER/model.safetensors.index.json: is no index of a checkpoint: ")
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    assert complaint(tmp_path).startswith("FOLDER/model.safetensors: can't be read: ")
    checkpoint(tmp_path, num_hidden_layers="many")
    line = "FOLDER/config.json: num_hidden_layers: should be a whole number above 0, got 'many'"
    assert complaint(tmp_path) == line


def test_the_sample_model_has_the_known_figures() -> None:
    """Parameters, cache and FLOPs of SmolLM2-135M as torch's FlopCounterMode counts them over 512 tokens."""
    smollm2 = decoder(
        layers=30, hidden=576, heads=9, kv_heads=3, head_dim=64, neurons=1536, vocabulary=49152, tied=True
    )
    assert smollm2.parameters == 134_515_008
    assert smollm2.kv_bytes_per_token == 23_040
    assert 512 * smollm2.flops_per_token(512) == pytest.approx(155.8e9, rel=1e-3)


def test_a_head_costs_the_same_whether_it_is_tied_or_not() -> None:
    tied, own = decoder(tied=True), decoder(tied=False)
    assert tied.flops_per_token(100) == own.flops_per_token(100)
    assert tied.parameters < own.parameters


@given(decoders(), st.integers(0, 10_000))
def test_a_longer_context_costs_more_and_nothing_is_negative(shape: Shape, context_tokens: int) -> None:
    assert 0 < shape.flops_per_token(context_tokens) < shape.flops_per_token(context_tokens + 1)
    assert all(size >= 0 for size in shape.bytes_by_part.values())
    assert sum(shape.bytes_by_part.values()) == shape.bytes


def test_names_of_other_architectures_find_their_part() -> None:
    names = {
        "transformer.h.0.attn.c_attn.weight": "attention",
        "transformer.wte.weight": "embedding",
        "transformer.h.0.ln_1.weight": "norms",
        "gpt_neox.layers.0.attention.dense.weight": "attention",
        "embed_out.weight": "head",
        "model.layers.0.mlp.experts.0.gate_proj.weight": "experts",
        "model.layers.0.self_attn.rotary_emb.inv_freq": "attention",
        "score.weight": "other",
    }
    assert {name: tensor(name, (2, 2)).part for name in names} == names
