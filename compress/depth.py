"""Which layers does a model need least, and what is it without them?"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from compress.layers import Report, Unsupported, shapes, stack, walk
from compress.recipe import DropLayers
from compress.text import Blocks

PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")
"""Lists in configs of transformers 5 that say something of each layer."""


def drop_layers(model: Any, step: DropLayers, text: Blocks, report: Report) -> dict[str, Any]:
    """Removes layers from the model; returns what was measured and which went. Raises Unsupported."""
    layers = stack(model)
    if step.layers >= len(layers):
        raise Unsupported(f"drop_layers: layers must be below the model's {len(layers)}, got {step.layers}")
    influence = block_influence(model, text, report)
    dropped = sorted(sorted(range(len(layers)), key=influence.__getitem__)[: step.layers])
    keep(model, [index for index in range(len(layers)) if index not in dropped])
    refuse_unsaid(model, dropped, step.do)
    return {"block_influence": influence, "dropped": dropped}


def refuse_unsaid(model: Any, dropped: list[int], step: str) -> None:
    """Raises Unsupported where the config of a model without these layers describes another one."""
    if shapes(model, model.config) != {name: tensor.shape for name, tensor in model.state_dict().items()}:
        raise Unsupported(f"{step}: {type(model).__name__}'s config can't say that {dropped} of its layers went")


def block_influence(model: Any, text: Blocks, report: Report) -> list[float]:
    """1 - mean cosine between what goes into a layer and what comes out, for each (ShortGPT, eq. 1)."""
    return [_turn(before, after) for before, after in pairwise(_states(model, text, report))]


def _states(model: Any, text: Blocks, report: Report) -> Iterator[list[Tensor]]:
    """Hidden states before the first layer and after each."""
    seen = None
    for seen in walk(model, text, report):
        yield seen.inputs
    if seen is not None:
        yield seen.outputs()


def keep(model: Any, indices: list[int]) -> None:
    """Makes the model one of these layers alone, as its architecture has them: numbers and config follow."""
    layers = stack(model)
    model.model.layers = nn.ModuleList(layers[index] for index in indices)
    for number, layer in enumerate(model.model.layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                setattr(module, "layer_idx", number)  # noqa: B010  torch's modules declare no such attribute
    model.config.num_hidden_layers = len(indices)
    for name in PER_LAYER:
        if kinds := getattr(model.config, name, None):
            setattr(model.config, name, [kinds[index] for index in indices])


def _turn(before: list[Tensor], after: list[Tensor]) -> float:
    cosines = [torch.cosine_similarity(a.float(), b.float(), dim=-1) for a, b in zip(before, after, strict=True)]
    return 1.0 - torch.cat(cosines, dim=1).mean().item()
