"""A distillation as a step of a recipe: from source and student to a checkpoint like any other step's."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from compress import distil, flow, kept, scores, stages, steps
from compress.flow import Needs
from compress.forecast import after
from compress.recipe import Recipe, validate
from compress.shape import read
from compress.spread import Spread
from compress.steps import Tell
from compress.teacher import Lot
from compress.text import gate
from compress.training import Training
from tests.compress.lessons import BY_TRANSFORMERS
from tests.compress.tiny_checkpoint import checkpoint

SLICE = {"blocks": 4, "tokens": 32}
DISTIL = {
    "do": "distil",
    "text": {"blocks": 12, "tokens": 32},
    "batch_blocks": 4,
    "steps": 6,
    "top_k": 16,
    "learning_rate": 3e-3,
}
NARROW = {"do": "narrow_ffn", "share": 0.5}
ROUND = {"do": "quantize", "scheme": "w8a8"}


def recipe(*wanted: dict[str, Any]) -> Recipe:
    values = {"name": "one", "source": "here", "steps": list(wanted), "calibration": SLICE, "evaluation": SLICE}
    return validate(values)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("parent"))


def carried_out(wanted: Recipe, parent: Path, store: Path, shared: Spread = BY_TRANSFORMERS) -> list[Path]:
    said = stages.texts(wanted, stages.tokenizer(parent))
    needs = Needs(memory_bytes=0)
    return flow.carry_out(wanted, parent, kept.checkpoint_hash(parent), said, store, flow.here, needs, shared)


@pytest.mark.slow
def test_pruned_distilled_and_quantized_in_one_recipe(parent: Path, tmp_path: Path) -> None:
    wanted = recipe(NARROW, DISTIL, ROUND)
    places = carried_out(wanted, parent, tmp_path)
    narrow, trained, rounded = (steps.done(place) for place in places)
    assert len({narrow.weights_hash, trained.weights_hash, rounded.weights_hash}) == 3
    curve = trained.found["learning_curve"]
    assert curve["step"] == [1, 2, 3, 4, 5, 6]
    assert curve["loss"][-1] < curve["loss"][0]
    assert trained.seconds >= curve["seconds"][-1] + trained.found["teacher_seconds"]
    assert after(read(places[0]), wanted.steps[1]) == read(places[1])
    assert not list(tmp_path.glob("*-training"))
    assert carried_out(wanted, parent, tmp_path, Spread(teach=unwanted, train=unwanted)) == places


@pytest.mark.slow
def test_what_a_distillation_saves_says_exactly_what_the_compressor_said(parent: Path, tmp_path: Path) -> None:
    wanted = recipe(NARROW, DISTIL)
    place = carried_out(wanted, parent, tmp_path)[-1]
    said = scores.Scores.load(place / steps.GATE_FILE)
    model = AutoModelForCausalLM.from_pretrained(place, dtype="auto").eval()
    again, _ = scores.score(model, gate(AutoTokenizer.from_pretrained(place), wanted.evaluation))
    assert abs(again.nats - said.nats).max() < 1e-6


@pytest.mark.slow
def test_a_smaller_student_begins_with_layers_of_its_teacher(parent: Path, tmp_path: Path) -> None:
    wanted = recipe(DISTIL | {"student": {"layers": 2}})
    (place,) = carried_out(wanted, parent, tmp_path)
    assert steps.done(place).found["layers_taken"] == [0, 2]
    assert after(read(parent), wanted.steps[0]) == read(place)
    assert steps.done(place).found["learning_curve"]["loss"][-1] > 0


@pytest.mark.slow
def test_a_recipe_that_is_killed_while_it_trains_goes_on_from_the_checkpoint(parent: Path, tmp_path: Path) -> None:
    wanted = recipe(NARROW, DISTIL | {"checkpoint_every": 2})

    class Killed(Exception):
        """As kill -9 of the whole run would."""

    def killed(job: Training, tell: Tell) -> None:
        def until(doing: str, share: float | None) -> None:
            if share is not None and share > 4.5 / 6:
                raise Killed

        BY_TRANSFORMERS.train(job, until)

    whole = carried_out(wanted, parent, tmp_path / "whole")[-1]
    with pytest.raises(Killed):
        carried_out(wanted, parent, tmp_path / "broken", Spread(teach=BY_TRANSFORMERS.teach, train=killed))
    rest = Spread(teach=unwanted, train=BY_TRANSFORMERS.train)
    broken = carried_out(wanted, parent, tmp_path / "broken", rest)[-1]
    one, other = (steps.done(place) for place in (whole, broken))
    assert other.weights_hash == one.weights_hash
    assert other.found["learning_curve"]["loss"] == one.found["learning_curve"]["loss"]


@pytest.mark.parametrize(
    ("layers", "left", "taken"), [(30, 3, [0, 14, 29]), (4, 2, [0, 3]), (5, 1, [0]), (4, 3, [0, 2, 3])]
)
def test_a_smaller_student_takes_layers_from_all_over(layers: int, left: int, taken: list[int]) -> None:
    assert distil.spread_evenly(layers, left) == taken


def unwanted(*_: Path | list[Lot] | int | Tell | Training) -> None:
    raise AssertionError("what is kept already is not done again")
