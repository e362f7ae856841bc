"""What does each layer of a model see on calibration text? Layer after layer, so that one at a time is enough."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.text import Blocks

Report = Callable[[float], None]
"""Hears which share of the work is done."""


class Unsupported(ValueError):
    """A model that a step can't change; it names the step, the architecture and what is missing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """One layer and what comes into it. Whoever gets it may change the layer before it is asked for outputs."""

    index: int
    layer: nn.Module
    inputs: list[Tensor]
    """Hidden states, one tensor (1, tokens, hidden) for each block of text."""
    arguments: dict[str, Any]

    def outputs(self) -> list[Tensor]:
        """What the layer, as it is now, makes of its inputs."""
        with torch.inference_mode():
            return [_first(self.layer(hidden, **self.arguments)) for hidden in self.inputs]

    def gram(self, linear: nn.Module) -> Tensor:
        """X^T X over all tokens, X being what comes into one of the layer's linear maps.

        Each block's in float32, their sum in float64.
        """
        total: Tensor | None = None

        def add(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            nonlocal total
            rows = arguments[0].detach().flatten(0, -2).float()
            block = (rows.T @ rows).double()
            total = block if total is None else total.add_(block)

        hook = linear.register_forward_pre_hook(add)
        try:
            self.outputs()
        finally:
            hook.remove()
        assert total is not None
        return total


def walk(model: Any, text: Blocks, report: Report) -> Iterator[Seen]:
    """Each layer in order, with the inputs that the layers before it, as they are then, give it."""
    hidden, arguments = _entrance(model, text)
    layers = stack(model)
    for index, layer in enumerate(layers):
        seen = Seen(index=index, layer=layer, inputs=hidden, arguments=arguments[index])
        yield seen
        hidden = seen.outputs()
        report((index + 1) / len(layers))


def stack(model: Any) -> nn.ModuleList:
    """The list of a decoder's layers. Raises Unsupported."""
    found = getattr(getattr(model, "model", None), "layers", None)
    if not isinstance(found, nn.ModuleList):
        raise Unsupported(f"{type(model).__name__} has no list of layers at model.layers")
    return found


def shapes(model: Any, config: Any) -> dict[str, torch.Size]:
    """Of every weight that the model's architecture has with a config; none of them is made."""
    with torch.device("meta"):
        made = type(model)(config)
    return {name: tensor.shape for name, tensor in made.state_dict().items()}


def part(layer: nn.Module, path: str, step: str) -> nn.Linear:
    """One of a layer's linear maps. Raises Unsupported."""
    found: Any = layer
    for name in path.split("."):
        found = getattr(found, name, None)
    if not isinstance(found, nn.Linear):
        raise Unsupported(f"{step} does not know this architecture: {type(layer).__name__} has no linear map {path}")
    return found


def _entrance(model: Any, text: Blocks) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """What comes into the first layer, and what else each layer is called with (the same for every block)."""
    hidden: list[Tensor] = []
    arguments: list[dict[str, Any]] = [{} for _ in stack(model)]

    class Entered(Exception):
        """The first layer was reached."""

    def enter(module: nn.Module, positional: tuple[Tensor, ...], named: dict[str, Any]) -> None:
        hidden.append(positional[0] if positional else named["hidden_states"])
        raise Entered

    def note(index: int) -> Any:
        def noted(module: nn.Module, positional: tuple[Tensor, ...], named: dict[str, Any]) -> None:
            arguments[index] = {name: value for name, value in named.items() if name != "hidden_states"}

        return noted

    layers, rows = stack(model), [torch.tensor([row], device=model.device) for row in text.rows]
    with torch.inference_mode():
        hooks = [layer.register_forward_pre_hook(note(index), with_kwargs=True) for index, layer in enumerate(layers)]
        model(rows[0], use_cache=False)
        for hook in hooks:
            hook.remove()
        hook = layers[0].register_forward_pre_hook(enter, with_kwargs=True)
        for row in rows:
            with suppress(Entered):
                model(row, use_cache=False)
        hook.remove()
    return hidden, arguments


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
