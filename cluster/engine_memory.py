"""What lies in a device's memory while an engine runs, and what is left for the cache?"""

from dataclasses import dataclass

from cluster.devices import Device
from cluster.model import Model
from cluster.step_time import Layout

MIB = 2**20
RUNTIME_BYTES = 930 * MIB
"""CUDA's context, libraries and workspaces: with ACTIVATION_TENSORS it leaves on an RTX 4090 what vLLM reported there
for Llama 3.1 8B (1.15 GiB beside weights and cache; docs/plan_accuracy.md)."""
CPU_RUNTIME_BYTES = 3 * 700_000_000
"""Replica, engine core and worker, each with its libraries."""
GRAPH_BYTES = 400 * MIB
"""Recorded CUDA graphs, which lie outside of vLLM's own budget."""
REDUCE_BYTES = 300 * MIB
"""Buffers of each device that exchanges with others."""
ACTIVATION_TENSORS = 4
"""Hidden states alive at once in a step: residual, normed, attention's in and out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSettings:
    """What vLLM is told, or takes by itself."""

    max_sequences: int
    """Sequences in one step (max_num_seqs)."""
    batched_tokens: int
    """New tokens in one step (max_num_batched_tokens)."""
    context_tokens: int
    """Longest prompt and answer together (max_model_len)."""
    memory_share: float = 0.92
    """Of the device's memory (gpu_memory_utilization)."""
    block_tokens: int = 16
    kv_bits: int | None = None
    """Of a cached value; None: as the model says."""
    cache_bytes: int | None = None
    """Of the whole cache (kv_cache_memory_bytes); None: what is left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineMemory:
    """Bytes on each device of one replica."""

    device_bytes: int
    usable_bytes: int
    """The share that vLLM may take."""
    weights_bytes: int
    activation_bytes: int
    """At the largest step, estimated."""
    runtime_bytes: int
    cache_bytes: int | None = None
    """What the cache was told to take; None: all that is left."""

    @property
    def kv_bytes(self) -> int:
        """What is left for the cache; below 0, how much is missing before there is any."""
        left = self.usable_bytes - self.weights_bytes - self.activation_bytes - self.runtime_bytes
        return left if self.cache_bytes is None else min(left, self.cache_bytes)


def default_settings(device: Device, *, context_tokens: int, devices: int = 1) -> EngineSettings:
    """What vLLM 0.29's server takes where it is told nothing (its EngineArgs.get_batch_defaults)."""
    gib = device.memory_bytes / 2**30
    if device.capability == "cpu":
        sequences, tokens = 128 * devices, 2048 * devices
    elif gib >= 160:
        sequences, tokens = 1024, 16384
    elif gib >= 70 and "a100" not in device.name:
        sequences, tokens = 1024, 8192
    else:
        sequences, tokens = 256, 2048
    return EngineSettings(
        max_sequences=min(sequences, tokens),
        batched_tokens=tokens,
        context_tokens=context_tokens,
        block_tokens=128 if device.capability == "cpu" else 16,
    )


def engine_memory(
    model: Model, device: Device, *, layout: Layout, settings: EngineSettings, loaded_bytes: int
) -> EngineMemory:
    """How a device's memory is used. `loaded_bytes` are one device's weights as the engine keeps them."""
    is_cpu = device.capability == "cpu"
    shared = REDUCE_BYTES if layout.devices > 1 and not is_cpu else 0
    return EngineMemory(
        device_bytes=device.memory_bytes,
        usable_bytes=int(device.memory_bytes * settings.memory_share),
        weights_bytes=loaded_bytes,
        activation_bytes=activation_bytes(model, settings, tensor=layout.tensor),
        runtime_bytes=(CPU_RUNTIME_BYTES if is_cpu else RUNTIME_BYTES) + shared,
        cache_bytes=settings.cache_bytes,
    )


def activation_bytes(model: Model, settings: EngineSettings, *, tensor: int) -> int:
    """The largest step's activations: hidden states, one feed-forward network's gate, up and product, then the scores
    of each sequence over the vocabulary in float32 (with a copy for sampling). The two follow each other in time.
    """
    each = model.dtype_bits // 8
    width = max(model.neurons, _expert_neurons(model))
    inside = settings.batched_tokens * each * (ACTIVATION_TENSORS * model.hidden + 3 * width // tensor)
    scores = 2 * 4 * settings.max_sequences * model.vocabulary
    return max(inside, scores)


def _expert_neurons(model: Model) -> int:
    """Width of a token's routed experts together, each with a gate, an up and a down map."""
    if not (experts := model.experts):
        return 0
    return experts.active * model.parts["experts"].weights // (experts.layers * experts.total * 3 * model.hidden)
