"""A checkpoint's tensors are known from a few bytes of its files, whoever wrote them."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from cluster.tensors import PARTS, Tensor, UnreadableCheckpoint, from_headers, largest_float, read
from tests.cluster.published import NAMES, published

HALF, WHOLE = ("F16", (4, 8)), ("F32", (4, 8))


def part(name: str, shape: tuple[int, ...] = (2, 2)) -> str:
    (tensor,) = from_headers({name: ("BF16", shape)})
    return tensor.part


def complaint(folder: Path) -> str:
    with pytest.raises(UnreadableCheckpoint) as refused:
        read(folder)
    return str(refused.value).replace(f"{folder}", "FOLDER")


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(("float16", "float32", "int8", "int64")), st.lists(st.integers(1, 5), max_size=3)),
        min_size=1,
        max_size=6,
    )
)
def test_what_safetensors_wrote_is_read(tmp_path_factory: pytest.TempPathFactory, held: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_file({name: np.zeros(shape, dtype) for name, (dtype, shape) in held.items()}, folder / "model.safetensors")
    found = {tensor.name: tensor for tensor in read(folder)}
    assert {name: list(tensor.shape) for name, tensor in found.items()} == {
        name: shape for name, (_, shape) in held.items()
    }
    data = (folder / "model.safetensors").stat().st_size - 8
    (header,) = struct.unpack("<Q", (folder / "model.safetensors").read_bytes()[:8])
    assert sum(tensor.bytes for tensor in found.values()) == data - header


def test_shapes_may_come_from_elsewhere_in_torchs_words() -> None:
    assert from_headers({"a": ("torch.bfloat16", (4, 8))}) == from_headers({"a": ("BF16", [4, 8])})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.0.self_attn.q_proj.weight", "attention"),
        ("model.layers.0.self_attn.q_norm.weight", "norms"),
        ("model.layers.0.linear_attn.in_proj_qkv.weight", "attention"),
        ("model.layers.0.mamba.in_proj.weight", "attention"),
        ("model.layers.0.mlp.experts.7.gate_proj.weight", "experts"),
        ("model.layers.0.mlp.experts.gate_up_proj", "experts"),
        ("model.layers.0.mlp.experts.gate_up_proj_blocks", "experts"),
        ("model.layers.0.mlp.experts.gate_up_proj_scales", "scales"),
        ("model.layers.0.block_sparse_moe.experts.3.w1.weight", "experts"),
        ("model.layers.0.block_sparse_moe.input_linear.weight", "experts"),
        ("model.layers.0.feed_forward.experts.down_proj", "experts"),
        ("backbone.layers.1.mixer.experts.0.up_proj.weight", "experts"),
        ("backbone.layers.1.mixer.up_proj.weight", "feed_forward"),
        ("backbone.layers.1.mixer.in_proj.weight", "attention"),
        ("model.layers.0.mlp.gate.weight", "feed_forward"),
        ("model.layers.0.mlp.router.weight", "feed_forward"),
        ("model.layers.0.mlp.shared_experts.up_proj.weight", "feed_forward"),
        ("model.layers.0.mlp.shared_expert_gate.weight", "feed_forward"),
        ("model.decoder.layers.0.fc1.weight", "feed_forward"),
        ("backbone.embeddings.weight", "embedding"),
        ("model.decoder.embed_positions.weight", "embedding"),
        ("lm_head.weight", "head"),
        ("vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight", "other"),
        ("visual.blocks.0.attn.qkv.weight", "other"),
        ("mtp.layers.0.self_attn.q_proj.weight", "other"),
        ("model.layers.0.mlp.down_proj.qzeros", "scales"),
    ],
)
def test_a_name_tells_the_part(name: str, expected: str) -> None:
    assert part(name) == expected


@pytest.mark.parametrize("name", NAMES)
def test_published_decoders_have_nothing_that_is_of_no_part(name: str) -> None:
    other = {tensor.name for tensor in published(name).tensors if tensor.part == "other"}
    assert all(".vision_tower." in name or ".multi_modal_projector." in name for name in other)


@given(st.sampled_from(NAMES).map(published))
def test_every_byte_is_of_one_part(model: Any) -> None:
    by_part = {name: sum(tensor.bytes for tensor in model.tensors if tensor.part == name) for name in PARTS}
    assert sum(by_part.values()) == sum(tensor.bytes for tensor in model.tensors) == model.expected["weight_bytes"]


def test_four_bit_weights_count_each() -> None:
    packed = {
        "model.layers.0.mlp.up_proj.qweight": ("I32", (16, 8)),
        "model.layers.0.mlp.up_proj.scales": ("F16", (1, 8)),
        "model.layers.0.mlp.experts.down_proj_blocks": ("U8", (2, 8, 4, 16)),
        "model.layers.0.mlp.down_proj.weight_packed": ("I32", (8, 2)),
    }
    assert [tensor.weights for tensor in from_headers(packed)] == [8 * 2 * 8, 2 * 8 * 4 * 32, 16 * 8 * 8, 0]


def test_the_largest_float_is_what_a_model_is_in() -> None:
    tensors = from_headers({"a": HALF, "b": ("F32", (2,)), "c": ("I8", (100,))})
    assert largest_float(tensors) == "F16"
    assert largest_float(()) is None


def test_the_index_says_which_files_count(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save_file({name: np.zeros(2, np.float16)}, tmp_path / f"{name}.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}))
    assert [tensor.name for tensor in read(tmp_path)] == ["a", "b"]


def test_what_is_no_checkpoint_is_said_in_one_line(tmp_path: Path) -> None:
    assert complaint(tmp_path) == "FOLDER: has no *.safetensors file"
    file = tmp_path / "model.safetensors"
    for broken in (b"nothing", struct.pack("<Q", 2**60), struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 9) + b"{"):
        file.write_bytes(broken)
        text = complaint(tmp_path)
        assert text.startswith("FOLDER/model.safetensors: can't be read: it is no safetensors file ")
        assert "\n" not in text
    file.unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    assert complaint(tmp_path) == "FOLDER/gone.safetensors: can't be read: no such file or directory"


def test_a_dtype_of_the_future_is_named() -> None:
    with pytest.raises(UnreadableCheckpoint, match=r"^a: dtype F6 is not known here$"):
        from_headers({"a": ("F6", (2,))})


def test_maps_are_what_steps_change() -> None:
    held = {
        "model.layers.0.mlp.experts.0.up_proj.weight": HALF,
        "model.layers.0.input_layernorm.weight": ("F16", (8,)),
        "lm_head.weight": HALF,
        "model.layers.0.self_attn.q_proj.weight": WHOLE,
    }
    maps: list[Tensor] = [tensor for tensor in from_headers(held) if tensor.is_map]
    assert [tensor.layer for tensor in maps] == [0, 0]
