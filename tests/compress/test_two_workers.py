"""Several workers do what one would: the same gradients, the same training, whole models or shards of them."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from compress import training, training_state
from compress.spread import train_here
from compress.training import Training
from tests.compress.lessons import unheard
from tests.compress.test_training import distil, job
from tests.compress.two_workers import gradients, read

pytestmark = pytest.mark.slow
WAYS = {"one": {}, "two": {"workers": 2}, "sharded": {"workers": 2, "sharded": True}}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Training]:
    folder = tmp_path_factory.mktemp("ways")
    return {name: job(folder / name, distil(checkpoint_every=5, **fields)) for name, fields in WAYS.items()}


@pytest.fixture(scope="module")
def trained(jobs: dict[str, Training]) -> dict[str, Training]:
    for each in jobs.values():
        train_here(each, unheard)
    return jobs


def test_two_workers_have_the_gradients_that_one_has_of_the_whole_batch(jobs: dict[str, Training]) -> None:
    device = torch.device("cpu")
    alone = training.begin(jobs["one"].student, device)
    loss = training.backward(alone, jobs["one"], 1, 0)
    gradients([jobs["two"], jobs["sharded"]])
    for name in ("two", "sharded"):
        their_loss, theirs = read(jobs[name].folder)
        assert their_loss == pytest.approx(loss, rel=1e-5)
        for weight, value in alone.named_parameters():
            torch.testing.assert_close(theirs[weight], value.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.prove
def test_one_worker_two_and_two_that_share_shards_end_with_the_same_student(trained: dict[str, Training]) -> None:
    curves = {name: training_state.curve(each.folder).loss for name, each in trained.items()}
    weights = {name: load_file(each.folder / training.TRAINED) for name, each in trained.items()}
    for name in ("two", "sharded"):
        assert curves[name] == pytest.approx(curves["one"], rel=1e-3)
        for weight, value in weights["one"].items():
            torch.testing.assert_close(weights[name][weight], value, rtol=1e-2, atol=1e-3)


@pytest.mark.prove
def test_one_worker_goes_on_from_a_checkpoint_of_two_that_share_shards(
    trained: dict[str, Training], tmp_path: Path
) -> None:
    """The first steps by two, the rest by one: checkpoints do not say who wrote them."""
    longer = job(tmp_path, distil(steps=14))
    shutil.copy(trained["sharded"].folder / training_state.STATE, longer.folder)
    training.train(longer, 0, unheard)
    curve = training_state.curve(longer.folder)
    assert len(curve.loss) == 14
    assert curve.loss[-1] < curve.loss[0]
