"""What does training a model take on each device, and does it fit?"""

from dataclasses import dataclass

from cluster.devices import Device
from cluster.engine_memory import CPU_RUNTIME_BYTES, RUNTIME_BYTES
from cluster.model import Model
from cluster.training import Batch, Sharding, TrainingMemory, training_memory

COUNTS = (1, 2, 4, 8)
SHARDINGS: tuple[Sharding, ...] = ("ddp", "fsdp")
TOKENS = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRow:
    """One way to spread a training."""

    sharding: Sharding
    devices: int
    memory: TrainingMemory
    """On each device."""
    missing_bytes: int
    """On each device; 0 when it fits."""


def rows(model: Model, device: Device, *, batch: Batch, teacher: Model | None) -> tuple[TrainingRow, ...]:
    """DDP and FSDP on 1, 2, 4 and 8 devices. With a teacher a student learns from it, else from text alone."""
    runtime_bytes = CPU_RUNTIME_BYTES if device.capability == "cpu" else RUNTIME_BYTES
    usable_bytes = device.memory_bytes - runtime_bytes
    found = []
    for sharding in SHARDINGS:
        for devices in COUNTS:
            memory = training_memory(model, devices=devices, sharding=sharding, batch=batch, teacher=teacher)
            missing_bytes = max(0, memory.bytes - usable_bytes)
            found.append(TrainingRow(sharding=sharding, devices=devices, memory=memory, missing_bytes=missing_bytes))
    return tuple(found)


def batch(context_tokens: int) -> Batch:
    """One sequence of as many tokens as is usual, checkpointed."""
    return Batch(sequences=1, tokens=min(TOKENS, context_tokens))
