"""Which weights become zero, and how do the others recover? Research: vLLM gains no speed from it."""

from typing import Any

import torch
from torch import Tensor, nn

from compress.layers import Report, Unsupported, stack
from compress.library import oneshot
from compress.recipe import Mask
from compress.text import Blocks

RECOVERY_RATE = 1e-4
"""Learning rate of the steps between rounds."""
ROWS = 2
"""Blocks of text in one recovery step."""


def mask(model: Any, step: Mask, text: Blocks, seed: int, report: Report) -> dict[str, Any]:
    """Zeroes weights of the layers' linear maps; returns the sparsity that came out, and the recovery's losses."""
    maps, losses = linear_maps(model), list[float]()
    if step.by == "magnitude":
        losses = _by_magnitude(model, step, text, seed, report)
    else:
        oneshot(model, _modifiers(step), text, report)
    zeros = sum(int((linear.weight == 0).sum()) for linear in maps)
    return {"sparsity": zeros / sum(linear.weight.numel() for linear in maps), "recovery_losses": losses}


def linear_maps(model: Any) -> list[nn.Linear]:
    """Every linear map inside the layers: not the embedding, not the head. Raises Unsupported."""
    for name, weight in stack(model).named_parameters():
        if weight.dim() == 3 and "conv" not in name:
            raise Unsupported(f"{type(model).__name__} holds its experts together in {name}, not in linear maps")
    return [module for module in stack(model).modules() if isinstance(module, nn.Linear)]


def ramp(target: float, round_number: int, rounds: int) -> float:
    """Sparsity after a round, 1 to `rounds`: a cubic that slows down (Zhu and Gupta, arXiv 1710.01878, eq. 1)."""
    return target * (1 - (1 - round_number / rounds) ** 3)


def largest(weight: Tensor, sparsity: float, pattern: str) -> Tensor:
    """Where the weights stay: True for the largest of the matrix, or for two of each four neighbours in a row."""
    size = weight.abs()
    if pattern == "2:4":
        fours = size.unflatten(1, (-1, 4))
        return torch.zeros_like(fours, dtype=torch.bool).scatter_(2, fours.topk(2, dim=2).indices, True).flatten(1)
    gone = size.flatten().argsort()[: round(sparsity * size.numel())]
    stays = torch.ones(size.numel(), dtype=torch.bool, device=size.device)
    stays[gone] = False
    return stays.view_as(weight)


def _by_magnitude(model: Any, step: Mask, text: Blocks, seed: int, report: Report) -> list[float]:
    maps, losses = linear_maps(model), []
    # Weights alone: a model keeps some of its buffers in float32, as it will when it is loaded again.
    dtypes = {weight: weight.dtype for weight in model.parameters()}
    if step.recovery_steps:
        for weight in dtypes:
            weight.data = weight.data.float()  # bfloat16 would round the steps away
    random = torch.Generator().manual_seed(seed)
    for number in range(1, step.rounds + 1):
        sparsity = ramp(step.sparsity, number, step.rounds)
        stays = [largest(linear.weight.data, sparsity, step.pattern) for linear in maps]
        _hold(maps, stays)
        losses += _recover(model, maps, stays, step.recovery_steps, text, random)
        report(number / step.rounds)
    for weight, dtype in dtypes.items():
        weight.data = weight.data.to(dtype)
    return losses


def _hold(maps: list[nn.Linear], stays: list[Tensor]) -> None:
    for linear, mine in zip(maps, stays, strict=True):
        linear.weight.data.mul_(mine)


def _recover(
    model: Any, maps: list[nn.Linear], stays: list[Tensor], steps: int, text: Blocks, random: torch.Generator
) -> list[float]:
    """Trains the maps that are masked; the zeros stay zero. The loss of each step, in nats per token."""
    if not steps:
        return []
    for linear in maps:
        linear.weight.requires_grad_(True)
    optimizer = torch.optim.AdamW([linear.weight for linear in maps], lr=RECOVERY_RATE, weight_decay=0.0)
    rows, losses = torch.tensor(text.rows, device=model.device), []
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (min(ROWS, len(rows)),), generator=random).to(rows.device)]
        loss = model(batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([linear.weight for linear in maps], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        _hold(maps, stays)
        losses.append(loss.item())
    for linear in maps:
        linear.weight.requires_grad_(False)
    return losses


def _modifiers(step: Mask) -> list[Any]:
    from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier

    kind = {"wanda": WandaPruningModifier, "sparsegpt": SparseGPTModifier}[step.by]
    structure = "2:4" if step.pattern == "2:4" else "0:0"
    return [kind(sparsity=step.sparsity, mask_structure=structure, targets=["Linear"], ignore=["re:.*lm_head"])]
