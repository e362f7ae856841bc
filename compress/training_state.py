"""How far is a training? Its checkpoint: whole weights and optimizer, in one file, however they were shared."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)

from compress import kept
from compress.learning_curve import Curve

STATE = "state.pt"
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def keep(model: nn.Module, optimizer: torch.optim.Optimizer, curve: Curve, folder: Path, rank: int) -> None:
    """Every worker calls it, the first one writes: all of it, or what was there before stays."""
    weights, moments = get_state_dict(model, optimizer, options=WHOLE)
    if rank == 0:
        state = {"model": weights, "optimizer": moments, "loss": curve.loss, "seconds": curve.seconds}
        kept.file(folder / STATE, lambda partial: torch.save(state, partial))


def restored(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> Curve:
    """Puts back what was kept, and returns its curve; an empty one where nothing was."""
    if not (folder / STATE).exists():
        return Curve()
    state = _read(folder)
    set_state_dict(
        model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"], options=WHOLE
    )
    return Curve(loss=state["loss"], seconds=state["seconds"])


def curve(folder: Path) -> Curve:
    """The curve of what was kept; an empty one where nothing was."""
    if not (folder / STATE).exists():
        return Curve()
    state = _read(folder)
    return Curve(loss=state["loss"], seconds=state["seconds"])


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Whole ones on the first worker, under the model's own names."""
    found: dict[str, Any] = get_model_state_dict(model, options=WHOLE)
    return dict(found.items())


def _read(folder: Path) -> dict[str, Any]:
    return torch.load(folder / STATE, map_location="cpu", mmap=True, weights_only=True)
