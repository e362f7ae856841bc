"""A model made smaller as a user does it: what comes out is whole, checked, told honestly, and serves."""

import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from cluster.inventory import machine
from compress import flow, kept, steps
from compress.gate import GateFailed
from compress.recipe import validate
from compress.report import load
from headrace.fetching import resolve
from tests.e2e.compressing import all_ended, environment, lasting
from tests.e2e.typed import free_port, headrace

TIMEOUT_S = 900.0
pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

RECIPE = """
name: tiny-smaller
source: tiny
steps:
  - {do: narrow_ffn, share: 0.2}
  - {do: quantize, scheme: w8a8}
calibration: {blocks: 4, tokens: 256}
evaluation: {blocks: 4, tokens: 256}
speed: {rounds: 5, batches: [2], output_tokens: 8, prompt_tokens: 64}
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compress")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def artefact(work: Path) -> Path:
    done = headrace(
        "compress", str(work / "recipe.yaml"), "--out", str(work / "out"), env=environment(work), timeout_s=TIMEOUT_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return work / "out" / "tiny-smaller"


@pytest.mark.prove
def test_an_artefact_comes_with_a_report_that_was_measured(artefact: Path) -> None:
    report = load(artefact)
    assert [quality.executor for quality in report.quality] == ["transformers", "vllm"]
    assert report.size.bytes < report.size.parent_bytes
    assert report.gate.kl <= report.gate.kl_limit
    assert {(speed.what, speed.batch) for speed in report.speed} == {("prefill", 2), ("decode", 2), ("first_token", 2)}
    assert report.lineage.weights_hash == kept.checkpoint_hash(artefact)
    assert "<html" in (artefact / "report.html").read_text()


@pytest.mark.prove
def test_what_vllm_computes_is_what_the_compressor_computed(artefact: Path) -> None:
    ours, theirs = load(artefact).quality
    assert theirs.perplexity.value == pytest.approx(ours.perplexity.value, rel=0.02)


@pytest.mark.prove
def test_an_artefact_serves_without_flags_and_its_numbers_are_checked(artefact: Path, work: Path) -> None:
    port = str(free_port())
    words = ("serve", str(artefact), "--ask", "What is a class?", "--once", "--port", port)
    done = headrace(*words, env=environment(work), timeout_s=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "unverified" not in done.stdout
    assert "tokens/s" in done.stdout


@pytest.mark.prove
def test_the_same_recipe_again_takes_what_is_finished(artefact: Path, work: Path) -> None:
    before = load(artefact)
    done = headrace(
        "compress", str(work / "recipe.yaml"), "--out", str(work / "out"), env=environment(work), timeout_s=TIMEOUT_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    after = load(artefact)
    assert lasting(after) == lasting(before)


def test_an_engine_that_computes_something_else_is_refused_by_the_gate(tmp_path: Path) -> None:
    """One tensor of the saved result is scaled, so that what the compressor computed no longer holds."""
    values = yaml.safe_load(RECIPE)
    recipe = validate(values | {"steps": values["steps"][:1]})

    def damaging(work: Callable[..., Path], *arguments: object, needs: flow.Needs) -> Path:
        place = flow.here(work, *arguments, needs=needs)
        if work is steps.carry_out:
            _scale(place / "model.safetensors", "model.layers.1.mlp.down_proj.weight", 3.0)
        return place

    with pytest.raises(GateFailed, match=r"differs from the compressor by KL \d\.\d+ nats per token"):
        flow.run(
            recipe, resolve("tiny"), machine=machine(), store=tmp_path / "store", out=tmp_path / "out", call=damaging
        )
    assert not (tmp_path / "out").exists()


def _scale(path: Path, name: str, factor: float) -> None:
    tensors = load_file(path)
    tensors[name] *= factor
    save_file(tensors, path, metadata={"format": "pt"})


def test_what_is_wrong_with_a_recipe_is_said_in_one_line_each(work: Path) -> None:
    wrong = work / "wrong.yaml"
    wrong.write_text(RECIPE.replace("share: 0.2", "share: 2").replace("source: tiny", "sauce: tiny"))
    done = headrace("compress", str(wrong), env=environment(work), timeout_s=TIMEOUT_S)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert any("steps[0]" in line and "share" in line for line in lines)
    assert any("sauce" in line and "source" in line for line in lines)


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_killed_at_any_moment_it_goes_on_to_the_same_hashes(
    artefact: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    undisturbed = load(artefact)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    env, source, kills = environment(tmp_path), random.Random(0), 0
    command = [sys.executable, "-m", "headrace", "compress", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path)]
    for _ in range(20):
        run = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            run.wait(source.uniform(3, 40))
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.wait()
            kills += 1
        all_ended(env)
    done = headrace(*command[3:], env=env, timeout_s=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert lasting(load(tmp_path / "tiny-smaller")) == lasting(undisturbed)
    assert not list(tmp_path.glob(".*.partial"))
    record_property("kills", kills)
