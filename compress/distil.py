"""How does a student learn from the source? As one step of a recipe: made, trained, put back into its checkpoint."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from compress import depth, kept, steps, teacher, training_state
from compress.layers import Unsupported, stack
from compress.recipe import Distil, FewerLayers, Recipe
from compress.spread import Spread
from compress.steps import Tell
from compress.training import TRAINED, Training


def carry_out(
    before: Path, lessons: Path, step: Distil, recipe: Recipe, place: Path, spread: Spread, tell: Tell
) -> Path:
    """The checkpoint that a student becomes, kept at `place`; `lessons`: what the source said, or with on_policy its
    checkpoint. Raises Unsupported, NoChange, Diverged.

    Checkpoints of the training lie beside `place` until the result is whole.
    """
    folder = place.with_name(f"{place.name}-training")

    def change(model: Any, _: Any, heard: Tell) -> tuple[dict[str, Any], float]:
        return distil(model, before, lessons, step, recipe.seed, folder, spread, heard)

    kept.once(place, lambda unfinished: steps.build(before, step, recipe, unfinished, tell, change))
    shutil.rmtree(folder, ignore_errors=True)
    return place


def distil(
    model: Any, before: Path, lessons: Path, step: Distil, seed: int, folder: Path, spread: Spread, tell: Tell
) -> tuple[dict[str, Any], float]:
    """Trains the model, which came from `before`; returns what was measured, and seconds that went before: the source's
    and those of a training that was interrupted. Raises Unsupported, Diverged.
    """
    became = student(model, step)
    taught = {} if step.on_policy else {"teacher_seconds": teacher.seconds(lessons)}
    earlier_s = sum(taught.values()) + training_state.curve(folder).lasted_s
    begins = kept.once(folder / "student", partial(_begin, model, before, step))
    job = Training(student=begins, lessons=lessons, step=step, seed=seed, folder=folder)
    _train(job, spread, tell)
    put_back(model, folder / TRAINED)
    return became | {"learning_curve": training_state.curve(folder).found(), **taught}, earlier_s


def student(model: Any, step: Distil) -> dict[str, Any]:
    """Makes the model the step's student; returns which layers it has of those that came in. Raises Unsupported."""
    if not isinstance(step.student, FewerLayers):
        return {}
    layers, left = len(stack(model)), step.student.layers
    if left >= layers:
        raise Unsupported(f"distil: student.layers must be below the model's {layers}, got {left}")
    taken = spread_evenly(layers, left)
    depth.keep(model, taken)
    depth.refuse_unsaid(model, sorted(set(range(layers)) - set(taken)), step.do)
    return {"layers_taken": taken}


def spread_evenly(layers: int, left: int) -> list[int]:
    """Indices of so many layers, the first and the last among them if there are two or more."""
    return [round(index * (layers - 1) / max(1, left - 1)) for index in range(left)]


def _train(job: Training, spread: Spread, tell: Tell) -> None:
    if job.step.on_policy is None:
        spread.train(job, tell)
        return
    tell("starting TRL", None)
    from compress import on_policy  # seconds to import

    on_policy.train(job, job.step.on_policy, tell)


def put_back(model: Any, file: Path) -> None:
    """Gives the model the weights of a file, in its own dtype."""
    trained = load_file(file)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(trained[name])


def _begin(model: Any, before: Path, step: Distil, folder: Path) -> None:
    steps.save(model, before, folder, step)
