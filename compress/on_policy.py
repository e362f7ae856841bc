"""How does a student learn from what it writes itself? The source judges each of its tokens, in TRL's trainer.

Each step's prompts are beginnings of the text's blocks. As in compress.training, all that a step does follows from its
number and the seed, so that training goes on after any whole checkpoint as if it had never been interrupted.
"""

import random
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.trainer.distillation_config import DistillationConfig
from trl.trainer.distillation_trainer import DistillationTrainer

from compress import text, training
from compress.recipe import Distil, OnPolicy
from compress.steps import Tell
from compress.training import CLIP, Course, Training

BETA = {"forward_kl": 0.0, "reverse_kl": 1.0}
"""TRL's name for the kind of divergence."""


def train(job: Training, how: OnPolicy, tell: Tell) -> None:
    """Does the steps that are not done yet, in this process. Raises Diverged."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = training.begin(job.student, device)
    optimizer = training.adamw(model, job.step)
    # Before what was kept is put back: it leaves a mark of its own in the optimizer.
    level = LambdaLR(optimizer, lambda _: 1.0)
    course = Course(job=job, model=model, optimizer=optimizer, tell=tell)
    if course.goes_on:
        _go_on(course, model, how, level)
    training.finish(course, [name for name, _ in model.named_parameters()])


def prompts(tokenizer: Any, job: Training, how: OnPolicy, first: int) -> list[str]:
    """Of each step from the first one on, one after the other."""
    rows = text.blocks(tokenizer, job.step.text, "calibration").rows
    numbers = range(first, job.step.steps + 1)
    order = chain.from_iterable(training.batch(job.step, job.seed, number) for number in numbers)
    return tokenizer.batch_decode([rows[block][: how.prompt_tokens] for block in order])


def _go_on(course: Course, model: Any, how: OnPolicy, level: LambdaLR) -> None:
    job, tokenizer = course.job, AutoTokenizer.from_pretrained(course.job.student, trust_remote_code=False)
    trainer = _Trainer(
        model=model,
        teacher_model=_source(job.lessons, job.step),
        args=_arguments(job.folder, job.step, how, steps=job.step.steps + 1 - course.next),
        train_dataset=Dataset.from_dict({"prompt": prompts(tokenizer, job, how, course.next)}),
        processing_class=tokenizer,
        callbacks=[_Follower(course)],
        optimizers=(course.optimizer, level),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


class _Trainer(DistillationTrainer):
    """TRL's, but for its message to its makers that it is used."""

    def _send_telemetry(self) -> None:
        """Sends nothing."""


class _Follower(TrainerCallback):
    """Keeps a course beside TRL's own loop: before each step, and when its loss is known."""

    def __init__(self, course: Course) -> None:
        self._course = course

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """What the student writes follows from the step's number too."""
        course = self._course
        torch.manual_seed(random.Random(f"{course.job.seed} {course.next}").getrandbits(63))
        training.set_rate(course)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """After each step; what is logged at the end has no loss."""
        if logs and "loss" in logs:
            self._course.passed(logs["loss"])


def _source(checkpoint: Path, step: Distil) -> Any:
    """In the precision in which it is multiplied: it is not trained."""
    dtype = torch.bfloat16 if step.precision == "bfloat16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype, trust_remote_code=False)
    return model.requires_grad_(False)


def _arguments(folder: Path, step: Distil, how: OnPolicy, *, steps: int) -> DistillationConfig:
    gpu = torch.cuda.is_available()
    return DistillationConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=step.batch_blocks,
        max_completion_length=how.new_tokens,
        # What is no number is told by the loss, not by who samples.
        generation_kwargs={"use_cache": True, "remove_invalid_values": True},
        beta=BETA[step.loss],
        temperature=step.temperature,
        disable_dropout=True,
        max_grad_norm=CLIP,
        bf16=step.precision == "bfloat16",
        gradient_checkpointing=False,
        use_cpu=not gpu,
        dataloader_pin_memory=gpu,
        shuffle_dataset=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
