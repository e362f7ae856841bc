"""Weights that were rounded before show it; others are never said to be."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from compress.source import AlreadyQuantized, rounding

NAMES = [f"model.layers.{layer}.mlp.{name}_proj.weight" for layer in range(2) for name in ("gate", "down")]


def checkpoint(folder: Path, weights: torch.Tensor, config: dict[str, object] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or {}))
    save_file({name: weights.clone() for name in NAMES}, folder / "model.safetensors")
    return folder


def rounded(weights: torch.Tensor, group: int, *, values: int = 16) -> torch.Tensor:
    """Each group of a row to so many evenly spaced values."""
    groups = weights.unflatten(1, (-1, group))
    low, high = groups.amin(dim=-1, keepdim=True), groups.amax(dim=-1, keepdim=True)
    step = (high - low) / (values - 1)
    return (((groups - low) / step).round() * step + low).flatten(1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("group", [32, 64, 128, 256])
def test_four_bit_weights_are_found_whatever_their_groups(tmp_path: Path, group: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weights = rounded(torch.randn(32, 256), group).to(dtype)
    assert "to 4 bits" in (rounding(checkpoint(tmp_path, weights)) or "")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_plain_weights_are_not_said_to_be_rounded(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    assert rounding(checkpoint(tmp_path, torch.randn(32, 256).mul(0.02).to(dtype))) is None


def test_five_bit_weights_are_not_called_four_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    assert rounding(checkpoint(tmp_path, rounded(torch.randn(32, 256), 32, values=32))) is None


@given(sparsity=st.floats(0.0, 1.0))
def test_weights_that_are_mostly_zero_are_not_called_rounded(
    tmp_path_factory: pytest.TempPathFactory, sparsity: float
) -> None:
    torch.manual_seed(0)
    weights = torch.randn(32, 256) * (torch.rand(32, 256) >= sparsity)
    assert rounding(checkpoint(tmp_path_factory.mktemp("sparse"), weights)) is None


def test_one_map_that_is_not_rounded_speaks_for_all(tmp_path: Path) -> None:
    torch.manual_seed(0)
    checkpoint(tmp_path, rounded(torch.randn(32, 256), 32))
    save_file({"model.layers.2.mlp.up_proj.weight": torch.randn(32, 256)}, tmp_path / "a.safetensors")
    assert rounding(tmp_path) is None


@pytest.mark.parametrize(("config", "said"), [({"quant_method": "gptq"}, "gptq"), ({"bits": 4}, "some method")])
def test_a_checkpoint_that_is_stored_quantized_is_refused(tmp_path: Path, config: dict[str, object], said: str) -> None:
    folder = checkpoint(tmp_path, torch.zeros(32, 256), {"quantization_config": config})
    with pytest.raises(AlreadyQuantized, match=rf"stored quantized \({said}\): start from the model it was made of"):
        rounding(folder)


def test_a_checkpoint_without_known_maps_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    save_file({"wte.weight": torch.zeros(4, 4)}, tmp_path / "model.safetensors")
    assert rounding(tmp_path) is None
