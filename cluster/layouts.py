"""Over how many devices can a model be split? Layers by tensor parallelism, groups of layers by pipeline."""

from collections.abc import Iterator

from cluster.model import Attention, LatentAttention, Mixer, Model, Recurrence
from cluster.step_time import Layout


def layouts(model: Model, *, devices: int, per_machine: int = 8) -> tuple[Layout, ...]:
    """Every layout of at most `devices` devices that vLLM accepts, fewest devices first, then fewest stages.

    Tensor parallelism stays inside a machine of `per_machine` devices: it exchanges activations twice a layer.
    """
    found = [
        Layout(tensor=tensor, pipeline=pipeline)
        for tensor in range(1, min(devices, per_machine) + 1)
        if not refusals(model, tensor)
        for pipeline in range(1, min(model.layers, devices // tensor) + 1)
        if tensor == per_machine or tensor * pipeline <= per_machine or per_machine % tensor == 0
    ]
    return tuple(sorted(found, key=lambda layout: (layout.devices, layout.pipeline)))


def refusals(model: Model, tensor: int) -> tuple[str, ...]:
    """Why the layers can't be split over that many devices; empty when they can."""
    return tuple(dict.fromkeys(_refusals(model, tensor)))


def _refusals(model: Model, tensor: int) -> Iterator[str]:
    for mixer in model.mixers:
        yield from _of_mixer(mixer, tensor)
    if model.neurons % tensor:
        yield f"{model.neurons} neurons don't divide by {tensor}"


def _of_mixer(mixer: Mixer, tensor: int) -> Iterator[str]:
    match mixer:
        case Attention():
            if mixer.heads % tensor:
                yield f"{mixer.heads} heads don't divide by {tensor}"
            elif mixer.kv_heads % tensor and tensor % mixer.kv_heads:
                yield f"{mixer.kv_heads} KV heads neither divide by {tensor} nor divide it"
        case LatentAttention():
            if mixer.heads % tensor:
                yield f"{mixer.heads} heads don't divide by {tensor}"
        case Recurrence():
            if mixer.heads % tensor:
                yield f"{mixer.heads} state heads don't divide by {tensor}"
