"""A student that learns from what it writes: TRL's trainer as a step of a recipe, on small random models."""

import os
from multiprocessing import get_context
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from compress import distil, on_policy, steps, training, training_state
from compress.recipe import Distil
from compress.training import Diverged, Training
from tests.compress.lessons import unheard
from tests.compress.test_distil import NARROW, carried_out, recipe, unwanted
from tests.compress.tiny_checkpoint import checkpoint

pytestmark = pytest.mark.slow
STEPS = 12


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("parent"))


def asked(**fields: Any) -> dict[str, Any]:
    usual = {
        "do": "distil",
        "on_policy": {"prompt_tokens": 8, "new_tokens": 12},
        "text": {"blocks": 12, "tokens": 32},
        "batch_blocks": 4,
        "steps": STEPS,
        "learning_rate": 3e-3,
        "loss": "reverse_kl",
    }
    return usual | fields


def job(parent: Path, folder: Path, **fields: Any) -> Training:
    """A student with a layer less than the source."""
    folder.mkdir(exist_ok=True)
    step = Distil.model_validate(asked(student={"layers": 2}, **fields))
    model = AutoModelForCausalLM.from_pretrained(parent, dtype="auto")
    distil.student(model, step)
    steps.save(model, parent, folder / "student", step)
    return Training(student=folder / "student", lessons=parent, step=step, seed=7, folder=folder)


def train(work: Training, tell: steps.Tell = unheard) -> None:
    assert work.step.on_policy is not None
    on_policy.train(work, work.step.on_policy, tell)


@pytest.mark.parametrize("fields", [{}, {"loss": "forward_kl"}, {"precision": "bfloat16"}])
def test_what_a_student_writes_comes_nearer_to_what_its_source_would(
    fields: dict[str, Any], parent: Path, tmp_path: Path
) -> None:
    work = job(parent, tmp_path, steps=36, **fields)
    train(work)
    curve = training_state.curve(work.folder)
    assert len(curve.loss) == len(curve.seconds) == 36
    assert sum(curve.loss[-6:]) < 0.85 * sum(curve.loss[:6])
    weights = load_file(work.folder / training.TRAINED)
    student = AutoModelForCausalLM.from_pretrained(work.student)
    assert isinstance(student, LlamaForCausalLM)
    assert weights.keys() == dict(student.named_parameters()).keys()
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_a_training_that_was_killed_ends_where_one_that_was_not_does(parent: Path, tmp_path: Path) -> None:
    whole, broken = (job(parent, tmp_path / name, checkpoint_every=5) for name in ("whole", "broken"))
    train(whole)
    process = get_context("spawn").Process(target=train, args=(broken, killing))
    process.start()
    process.join()
    assert process.exitcode == -SIGKILL
    assert len(training_state.curve(broken.folder).loss) == 5
    train(broken)
    one, other = (training_state.curve(each.folder) for each in (whole, broken))
    assert other.loss == one.loss
    first, second = (load_file(each.folder / training.TRAINED) for each in (whole, broken))
    assert all(torch.equal(first[name], second[name]) for name in first)


def killing(doing: str, share: float | None) -> None:
    """Ends its own process after a step that is in no checkpoint."""
    if share is not None and share > 7.5 / STEPS:
        os.kill(os.getpid(), SIGKILL)


def test_a_training_that_diverges_is_refused_with_the_step(parent: Path, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"the loss is nan at step \d+: a lower learning_rate"):
        train(job(parent, tmp_path, learning_rate=1e30, warmup=0))


def test_as_a_step_of_a_recipe_it_asks_the_source_for_no_lessons(parent: Path, tmp_path: Path) -> None:
    wanted = recipe(NARROW, asked())
    shared = distil.Spread(teach=unwanted, train=unwanted)
    place = carried_out(wanted, parent, tmp_path, shared)[-1]
    done = steps.done(place)
    curve = done.found["learning_curve"]
    assert curve["step"] == list(range(1, STEPS + 1))
    assert sum(curve["loss"][-4:]) < sum(curve["loss"][:4])
    assert done.seconds >= curve["seconds"][-1]
    assert "teacher_seconds" not in done.found
    assert not list(tmp_path.glob("*-training"))
    taught = carried_out(recipe(NARROW, asked(loss="forward_kl")), parent, tmp_path, shared)[-1]
    assert taught != place
