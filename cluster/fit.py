"""Does a model fit on a device, how much of it at once, and what would make it fit?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cluster.devices import Device
from cluster.engine_memory import EngineMemory, EngineSettings, engine_memory
from cluster.kv_cache import Cut, Pool, pool
from cluster.layouts import layouts
from cluster.loaded_weights import loaded_bytes
from cluster.model import Model
from cluster.step_time import Layout

STEPS_IN_FLIGHT = 2
"""vLLM prepares a step while another one runs (asynchronous scheduling); on CPUs it doesn't."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """How a model lies on the devices of one replica."""

    layout: Layout
    memory: EngineMemory
    """On each device."""
    sequence_bytes: int
    """Cache of one sequence of the wanted context, on each device."""
    missing_bytes: int
    """On each device, for one such sequence; 0 when it fits."""
    largest_batch: float
    """Sequences of the wanted context that the cache holds at once (vLLM's "maximum concurrency")."""
    largest_context: int
    """Tokens of one sequence alone, no more than the model allows."""

    @property
    def fits(self) -> bool:
        return not self.missing_bytes


def fit(model: Model, device: Device, *, layout: Layout, settings: EngineSettings) -> Fit:
    """Counts weights, activations and the cache of one sequence of the wanted context against the device's memory.

    Raises NotAllocated.
    """
    loaded = _of_stage(loaded_bytes(model, tensor_parallel=layout.tensor), layout)
    memory = engine_memory(model, device, layout=layout, settings=settings, loaded_bytes=loaded)
    made = pool(model, cut(device, layout, settings))
    wanted_bytes = _of_stage(made.bytes_of_sequence(settings.context_tokens), layout)
    held_bytes = max(0, memory.kv_bytes) * layout.pipeline
    return Fit(
        layout=layout,
        memory=memory,
        sequence_bytes=wanted_bytes,
        missing_bytes=max(0, wanted_bytes - memory.kv_bytes),
        largest_batch=made.max_concurrency(held_bytes, settings.context_tokens),
        largest_context=_largest_context(model, made, memory, layout, settings),
    )


def smallest_fit(
    model: Model, device: Device, *, settings: EngineSettings, devices: int = 64, per_machine: int = 8
) -> Fit | None:
    """The layout of fewest devices that holds the model; None where none of at most `devices` does."""
    found = (
        fit(model, device, layout=layout, settings=settings)
        for layout in layouts(model, devices=devices, per_machine=per_machine)
    )
    return next((each for each in found if each.fits), None)


def cut(device: Device, layout: Layout, settings: EngineSettings) -> Cut:
    """How vLLM cuts its cache there. On CPUs windowed layers have longer blocks, and states are kept in float32."""
    is_cpu = device.capability == "cpu"
    return Cut(
        tensor_parallel=layout.tensor,
        block_tokens=settings.block_tokens,
        kernel_tokens=32 if is_cpu else 16,
        kv_bits=settings.kv_bits,
        state_bits=32 if is_cpu else None,
        in_flight_tokens=(1 if is_cpu else STEPS_IN_FLIGHT) * settings.batched_tokens,
    )


def _largest_context(model: Model, made: Pool, memory: EngineMemory, layout: Layout, settings: EngineSettings) -> int:
    """By bisection over whole blocks: a sequence's bytes never shrink as it grows."""

    def held(blocks: int) -> bool:
        tokens = min(model.context_tokens, blocks * settings.block_tokens)
        return _of_stage(made.bytes_of_sequence(tokens), layout) <= memory.kv_bytes

    low, high = 0, -(-model.context_tokens // settings.block_tokens)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if held(middle) else (low, middle - 1)
    return min(model.context_tokens, low * settings.block_tokens)


def _of_stage(count_bytes: int, layout: Layout) -> int:
    """A pipeline's groups of layers share it out."""
    return -(-count_bytes // layout.pipeline)


@dataclass(frozen=True, kw_only=True, slots=True)
class Remedy:
    """One thing that would make a model fit."""

    change: str
    layout: Layout
    largest_batch: float


def remedies(
    model: Model,
    device: Device,
    *,
    layout: Layout,
    settings: EngineSettings,
    others: Sequence[tuple[str, Model]] = (),
    per_machine: int = 8,
) -> tuple[Remedy, ...]:
    """What would make it fit, each alone: more devices, a shorter context, an 8-bit cache, `others` of the model
    (name and shape, such as its 4-bit form). Empty where nothing helps, or nothing is needed.
    """
    if (now := fit(model, device, layout=layout, settings=settings)).fits:
        return ()
    tried = [(f"{name} weights", fit(other, device, layout=layout, settings=settings)) for name, other in others]
    if now.largest_context >= settings.block_tokens:
        shorter = replace(settings, context_tokens=now.largest_context)
        tried.append(
            (f"a context of {now.largest_context:,} tokens", fit(model, device, layout=layout, settings=shorter))
        )
    if settings.kv_bits is None and model.kv_bits > 8:
        tried.append(("an 8-bit cache", fit(model, device, layout=layout, settings=replace(settings, kv_bits=8))))
    if wider := smallest_fit(model, device, settings=settings, per_machine=per_machine):
        tried.append((f"{wider.layout.devices} devices", wider))
    return tuple(
        Remedy(change=change, layout=each.layout, largest_batch=each.largest_batch)
        for change, each in tried
        if each.fits
    )
