"""What lies in a device's memory while a model is trained? Weights, gradients, optimizer, activations."""

from dataclasses import dataclass
from typing import Literal

from cluster.model import Model

Sharding = Literal["ddp", "fsdp"]

COMPUTED_BYTES = 2
"""Of a weight or an activation in bfloat16."""
GRADIENT_BYTES = 4
"""Gradients have the master weights' dtype."""
OPTIMIZER_BYTES = 8
"""AdamW's two moments in float32."""
MASTER_BYTES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What one device works on between two exchanges of gradients."""

    sequences: int = 1
    tokens: int = 2048
    """Of each sequence."""
    checkpointed: bool = True
    """Whether activations inside a layer are computed a second time instead of kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingMemory:
    """Bytes on each device."""

    weights_bytes: int
    """Master weights in float32, and what of them is at hand in bfloat16."""
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    logits_bytes: int
    """Scores over the vocabulary and their gradients, in float32."""
    teacher_bytes: int
    """Of the model that a student learns from; 0 without."""

    @property
    def bytes(self) -> int:
        return (
            self.weights_bytes
            + self.gradient_bytes
            + self.optimizer_bytes
            + self.activation_bytes
            + self.logits_bytes
            + self.teacher_bytes
        )


def training_memory(
    model: Model, *, devices: int, sharding: Sharding, batch: Batch, teacher: Model | None = None
) -> TrainingMemory:
    """Memory of mixed-precision training with AdamW.

    16 bytes a parameter beside the bfloat16 copy (Rajbhandari et al., ZeRO, arXiv 1910.02054, section 3.1): all on
    each device under DDP, shared out under FSDP, which gathers one layer at a time. Activations are 34 * s * b * h a
    layer with attention that keeps no scores, or 2 * s * b * h with one layer's 34 when checkpointed (Korthikanti et
    al., arXiv 2205.05198, equations 2 and 5).
    """
    parts = devices if sharding == "fsdp" else 1
    owned = -(-model.parameters // parts)
    gathered = model.parameters if sharding == "ddp" else 2 * _largest_unit(model)
    return TrainingMemory(
        weights_bytes=MASTER_BYTES * owned + COMPUTED_BYTES * gathered,
        gradient_bytes=GRADIENT_BYTES * owned,
        optimizer_bytes=OPTIMIZER_BYTES * owned,
        activation_bytes=_activation_bytes(model, batch),
        logits_bytes=2 * 4 * batch.sequences * batch.tokens * model.vocabulary * (2 if teacher else 1),
        teacher_bytes=0 if teacher is None else _teacher_bytes(teacher, parts),
    )


def _activation_bytes(model: Model, batch: Batch) -> int:
    one = batch.sequences * batch.tokens * model.hidden
    if not batch.checkpointed:
        return 34 * one * model.layers
    return 2 * one * model.layers + 34 * one


def _teacher_bytes(teacher: Model, parts: int) -> int:
    """Its weights alone: it has no gradients, and its activations are gone when the next layer has run."""
    return -(-teacher.weight_bytes // parts) + (2 * COMPUTED_BYTES * _largest_unit(teacher) if parts > 1 else 0)


def _largest_unit(model: Model) -> int:
    """Parameters that FSDP gathers at once: a layer, or the embedding."""
    outside = model.parts["embedding"].weights + model.parts["head"].weights
    return max((model.parameters - outside) // model.layers, model.parts["embedding"].weights)
