"""Training a student: every step follows from its number, and it goes on after a kill as if there had been none."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from compress import teacher, training, training_state
from compress.recipe import Distil
from compress.training import Diverged, Training
from tests.compress.lessons import teach_by, unheard
from tests.compress.tiny_models import llama, some_text

BLOCKS = 12
TEXT = some_text(blocks=BLOCKS)


def distil(**fields: Any) -> Distil:
    usual = {"do": "distil", "text": {"blocks": BLOCKS, "tokens": 32}, "batch_blocks": 4, "steps": 12, "top_k": 16}
    return Distil.model_validate(usual | {"learning_rate": 3e-3} | fields)


def job(folder: Path, step: Distil) -> Training:
    """A student of one layer less than its teacher."""
    folder.mkdir(exist_ok=True)
    lessons = folder / "lessons"
    if not lessons.exists():
        teach_by(llama(), lessons, teacher.missing(lessons, TEXT), step.top_k)
        llama(layers=2).save_pretrained(folder / "student")
    place = folder / "training"
    place.mkdir(exist_ok=True)
    return Training(student=folder / "student", lessons=lessons, step=step, seed=7, folder=place)


@given(st.integers(0, 2**63 - 1), st.integers(1, 6), st.integers(1, 40))
def test_an_epoch_reads_every_block_once_but_those_that_fill_no_batch(seed: int, batch: int, blocks: int) -> None:
    batch = min(batch, blocks)
    step = distil(text={"blocks": blocks, "tokens": 32}, batch_blocks=batch)
    epoch = blocks // batch
    for first in (1, 1 + epoch):
        read = Counter(block for number in range(epoch) for block in training.batch(step, seed, first + number))
        assert set(read.values()) == {1}
        assert len(read) == epoch * batch
        assert set(read) <= set(range(blocks))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    step = distil(batch_blocks=BLOCKS)
    orders = {tuple(training.batch(step, seed, number)) for seed in (1, 2) for number in (1, 2)}
    assert len(orders) == 4


@given(st.integers(2, 300), st.floats(0, 0.9), st.sampled_from(["cosine", "constant"]))
def test_the_rate_rises_then_falls_and_never_leaves_its_bounds(steps: int, warmup: float, schedule: str) -> None:
    step = distil(steps=steps, warmup=warmup, schedule=schedule)
    rates = [training.rate(step, number) for number in range(1, steps + 1)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates) > 0
    assert max(rates) <= step.learning_rate * (1 + 1e-9)
    if schedule == "cosine" and warmup == 0:
        assert rates[-1] == pytest.approx(training.LOWEST * step.learning_rate)


@pytest.mark.parametrize("fields", [{}, {"loss": "reverse_kl"}, {"precision": "bfloat16"}])
def test_a_student_comes_nearer_to_its_teacher(fields: dict[str, Any], tmp_path: Path) -> None:
    work = job(tmp_path, distil(**fields))
    training.train(work, 0, unheard)
    curve = training_state.curve(work.folder)
    assert len(curve.loss) == len(curve.seconds) == 12
    assert curve.loss[-1] < 0.8 * curve.loss[0]
    assert curve.seconds == sorted(curve.seconds)
    weights = load_file(work.folder / training.TRAINED)
    assert weights.keys() == dict(llama(layers=2).named_parameters()).keys()


def test_products_in_bfloat16_move_the_loss_little_and_leave_weights_in_float32(tmp_path: Path) -> None:
    ways = [job(tmp_path / name, distil(precision=name)) for name in ("float32", "bfloat16")]
    for way in ways:
        training.train(way, 0, unheard)
    one, other = (training_state.curve(way.folder).loss for way in ways)
    assert one != other
    assert other == pytest.approx(one, rel=0.05)
    assert {weight.dtype for weight in load_file(ways[1].folder / training.TRAINED).values()} == {torch.float32}


def test_a_training_that_was_killed_ends_where_one_that_was_not_does(tmp_path: Path) -> None:
    class Killed(Exception):
        """As kill -9 would, after a step that is in no checkpoint."""

    def killing(doing: str, share: float | None) -> None:
        if share is not None and share > 7.5 / 12:
            raise Killed

    step = distil(checkpoint_every=5)
    whole, broken = job(tmp_path / "whole", step), job(tmp_path / "broken", step)
    training.train(whole, 0, unheard)
    with pytest.raises(Killed):
        training.train(broken, 0, killing)
    assert len(training_state.curve(broken.folder).loss) == 5
    training.train(broken, 0, unheard)
    one, other = (training_state.curve(each.folder) for each in (whole, broken))
    assert other.loss == one.loss
    first, second = (load_file(each.folder / training.TRAINED) for each in (whole, broken))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_training_that_diverges_is_refused_with_the_step(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"the loss is nan at step \d+: a lower learning_rate"):
        training.train(job(tmp_path, distil(learning_rate=1e30, warmup=0)), 0, unheard)
