"""How does one of the workers train a student? Block after block against what the source said, alone or with others.

Everything that a step does follows from its number and the seed, so that training goes on after any whole checkpoint
as if it had never been interrupted.
"""

import random
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import cos, isfinite, pi
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn

from compress import kept, teacher, training_state
from compress.distil_loss import divergence
from compress.layers import stack
from compress.learning_curve import Curve
from compress.recipe import Distil
from compress.steps import Tell

TRAINED = "trained.safetensors"
CLIP = 1.0
"""The gradient's largest norm."""
BETAS = (0.9, 0.95)
LOWEST = 0.1
"""Where a cosine ends, as a share of the highest rate."""


class Diverged(ValueError):
    """Training whose loss is no number any more; it says at which step and what would help."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What every worker of a training knows."""

    student: Path
    """The checkpoint that it begins with."""
    lessons: Path
    """What the source says, as compress.teacher keeps it; with `on_policy` the source itself, a checkpoint."""
    step: Distil
    seed: int
    folder: Path
    """For checkpoints, and at last the trained weights."""


@dataclass(kw_only=True)
class Course:
    """A training on its way: each step is told, and every few are kept."""

    job: Training
    model: nn.Module
    optimizer: torch.optim.Optimizer
    tell: Tell
    rank: int = 0
    curve: Curve = field(init=False)
    start_s: float = field(init=False)

    def __post_init__(self) -> None:
        """Goes on where the last whole checkpoint ends."""
        self.curve = training_state.restored(self.model, self.optimizer, self.job.folder)
        self.start_s = time.perf_counter() - self.curve.lasted_s

    @property
    def next(self) -> int:
        """The number of the step that comes; 1 is the first."""
        return len(self.curve.loss) + 1

    @property
    def goes_on(self) -> bool:
        """Whether steps are left."""
        return self.next <= self.job.step.steps

    def passed(self, loss: float) -> None:
        """One step more. Raises Diverged."""
        step, number = self.job.step, self.next
        if not isfinite(loss):
            raise Diverged(f"distil: the loss is {loss} at step {number}: a lower learning_rate would help")
        self.curve.add(loss, time.perf_counter() - self.start_s)
        if self.rank == 0:
            self.tell(f"distil, {self.curve.told()}", number / step.steps)
        if number % step.checkpoint_every == 0 or not self.goes_on:
            training_state.keep(self.model, self.optimizer, self.curve, self.job.folder, self.rank)


def train(job: Training, rank: int, tell: Tell) -> None:
    """Does the steps that are not done yet, as one of the job's workers. Raises Diverged.

    With several, their process group must be there. The first one keeps checkpoints, tells, and writes the weights.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = begin(job.student, device)
    names = [name for name, _ in model.named_parameters()]
    shared = share(model, job.step, device)
    course = Course(job=job, model=shared, optimizer=adamw(shared, job.step), tell=tell, rank=rank)
    while course.goes_on:
        course.passed(one_step(course))
    finish(course, names)


def adamw(model: nn.Module, step: Distil) -> torch.optim.Optimizer:
    """Of all weights; each step sets its own rate."""
    return torch.optim.AdamW(model.parameters(), lr=step.learning_rate, betas=BETAS, weight_decay=0.0)


def finish(course: Course, names: Sequence[str]) -> None:
    """Writes the weights of these names, on the first worker; every worker calls it."""
    weights = training_state.weights(course.model)
    if course.rank == 0:
        whole = {name: weights[name].contiguous() for name in names}
        kept.file(course.job.folder / TRAINED, lambda partial: save_file(whole, partial))


def one_step(course: Course) -> float:
    """The next step on this worker's part of the batch; the loss over the whole batch, before the step."""
    loss = backward(course.model, course.job, course.next, course.rank)
    nn.utils.clip_grad_norm_(course.model.parameters(), CLIP)
    set_rate(course)
    course.optimizer.step()
    course.optimizer.zero_grad(set_to_none=True)
    return loss


def set_rate(course: Course) -> None:
    """The next step's learning rate."""
    for group in course.optimizer.param_groups:
        group["lr"] = rate(course.job.step, course.next)


def backward(model: nn.Module, job: Training, number: int, rank: int) -> float:
    """Gradients of the mean over the batch, on every worker alike; that mean."""
    workers, device = job.step.workers, next(model.parameters()).device
    mine = batch(job.step, job.seed, number)[rank::workers]
    total = torch.zeros((), device=device)
    for place, block in enumerate(mine, start=1):
        lesson = teacher.lesson(job.lessons, block)
        with _together(model, place == len(mine)):
            # One block at a time: the logits of more would be most of the memory.
            with torch.autocast(device.type, torch.bfloat16, enabled=job.step.precision == "bfloat16"):
                logits = model(lesson.tokens[None].to(device), use_cache=False).logits[0, :-1]
            ids, said = lesson.ids.to(device), lesson.logprobs.to(device)
            loss = divergence(logits, ids, said, job.step.loss, job.step.temperature) / len(mine)
            loss.backward()
        total += loss.detach()
    if workers > 1:
        dist.all_reduce(total)
    return total.item() / workers


def batch(step: Distil, seed: int, number: int) -> list[int]:
    """Blocks of a step, 1 on. Each epoch goes through the text in an order of its own; what fills no batch waits."""
    epoch, place = divmod(number - 1, step.text.blocks // step.batch_blocks)
    order = random.Random(f"{seed} {epoch}").sample(range(step.text.blocks), step.text.blocks)
    return order[place * step.batch_blocks : (place + 1) * step.batch_blocks]


def rate(step: Distil, number: int) -> float:
    """The learning rate of a step, 1 on: up in a line, then level or down along half a cosine."""
    rising = round(step.warmup * step.steps)
    if number <= rising:
        return step.learning_rate * number / (rising + 1)
    if step.schedule == "constant":
        return step.learning_rate
    done = (number - rising - 1) / max(1, step.steps - rising - 1)
    return step.learning_rate * (LOWEST + (1 - LOWEST) * (1 + cos(pi * done)) / 2)


def begin(folder: Path, device: torch.device) -> Any:
    """The student as training starts."""
    from transformers import AutoModelForCausalLM

    # In float32: bfloat16 would round the steps away. Without dropout: the source had none when it spoke.
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    return model.to(device).eval().requires_grad_(True)


def share(model: Any, step: Distil, device: torch.device) -> nn.Module:
    """The model as its workers share it: whole in each, or each layer in parts."""
    if step.workers == 1:
        return model
    if not step.sharded:
        return nn.parallel.DistributedDataParallel(model)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (step.workers,))
    for part in (*stack(model), model):
        fully_shard(part, mesh=mesh)
    return model


def _together(model: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Gradients are exchanged once a step, with the last block's."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return nullcontext() if last else model.no_sync()
    from torch.distributed.fsdp import FSDPModule

    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
    return nullcontext()
