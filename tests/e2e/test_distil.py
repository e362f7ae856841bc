"""Distillation as a user starts it: the source's answers by vLLM, two workers, and whatever of it is killed."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from compress import flow, kept, stages, statistics, steps, training, training_state
from compress.on_ray import told
from compress.recipe import validate
from compress.report import Report, load
from compress.scores import Scores
from compress.spread import Spread, train_here
from compress.teacher import ROWS
from headrace.fetching import resolve
from tests.compress.lessons import unheard
from tests.compress.ray_workers import WAYS
from tests.compress.test_distil import unwanted
from tests.compress.test_training import distil, job
from tests.e2e.compressing import all_ended, environment, processes
from tests.e2e.typed import title

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
LOOK_EVERY_S = 0.005
PATIENCE_S = 600.0
STEPS, CHECKPOINT_EVERY, BLOCKS = 60, 10, 104
NAME = "tiny-distilled"
RECIPE = f"""
name: {NAME}
source: tiny
steps:
  - {{do: narrow_ffn, share: 0.5}}
  - do: distil
    text: {{blocks: {BLOCKS}, tokens: 256}}
    steps: {STEPS}
    batch_blocks: 4
    learning_rate: 1.0e-3
    workers: 2
    checkpoint_every: {CHECKPOINT_EVERY}
  - {{do: quantize, scheme: w8a8}}
calibration: {{blocks: 4, tokens: 256}}
evaluation: {{blocks: 4, tokens: 256}}
tasks: []
speed: {{rounds: 5, batches: [2], output_tokens: 8, prompt_tokens: 64}}
"""


class Run:
    """`headrace compress`, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        (folder / "recipe.yaml").write_text(RECIPE)
        self.env, self._folder = environment(folder), folder
        command = [sys.executable, "-m", "headrace", "compress", str(folder / "recipe.yaml"), "--out", str(folder)]
        with (folder / "said").open("w") as said:
            self._process = subprocess.Popen(command, env=self.env, stdout=said, stderr=said)

    def shards(self) -> dict[str, int]:
        """What the source said that is kept, each shard with the nanosecond in which it was written."""
        return {path.name: path.stat().st_mtime_ns for path in self.store.glob("teacher-*/shard-*.safetensors")}

    def share_trained(self) -> float | None:
        """Of the steps; None while something else is done."""
        doing, share = told(self._progress)
        return share if doing.startswith("distil, loss") else None

    def forget(self) -> None:
        """What was told so far."""
        self._progress.unlink()

    def looks(self) -> Iterator[None]:
        """Once every few milliseconds, until it has ended."""
        until_s = time.monotonic() + PATIENCE_S
        while self._process.poll() is None:
            yield
            assert time.monotonic() < until_s, self._said()
            time.sleep(LOOK_EVERY_S)

    def processes(self, words: str) -> list[psutil.Process]:
        return [process for process in processes(self.env) if words in title(process)]

    def kill(self) -> None:
        """The command itself; what it started ends with it."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        all_ended(self.env)

    def report(self) -> Report:
        assert self._process.wait(PATIENCE_S) == 0, self._said()
        return load(self._folder / NAME)

    def _said(self) -> str:
        return (self._folder / "said").read_text()

    @property
    def _progress(self) -> Path:
        return self.store / f".progress-{NAME}.json"

    @property
    def store(self) -> Path:
        return Path(self.env["HEADRACE_CACHE"]) / "compress"


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A recipe of which the command, an engine's process and a training worker were killed, each in the middle."""

    report: Report
    store: Path
    first_shards: dict[str, int]
    """What lay there when the command was killed."""
    shards: dict[str, int]
    workers: tuple[set[int], set[int]]
    """Their pids before one was killed, and after."""
    killed_at: float
    went_on_at: float
    """Shares of the steps: told last before, and first by the workers that came then."""


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Broken:
    folder = tmp_path_factory.mktemp("broken")
    first_shards = _killed_while_asking(Run(folder))
    run = Run(folder)
    before, killed_at = _kill_a_worker(run)
    after, went_on_at = _next_workers(run, before)
    return Broken(
        report=run.report(),
        store=run.store,
        first_shards=first_shards,
        shards=run.shards(),
        workers=(before, after),
        killed_at=killed_at,
        went_on_at=went_on_at,
    )


def _killed_while_asking(run: Run) -> dict[str, int]:
    """Kills the process that asks the engine, and later, when another has gone on, all of the run."""
    for _ in run.looks():
        if len(run.shards()) >= 2:
            for process in run.processes("ray::MapWorker"):
                process.kill()
            break
    reached = len(run.shards())
    for _ in run.looks():
        if len(run.shards()) >= reached + 2:
            run.kill()
    return run.shards()


def _kill_a_worker(run: Run) -> tuple[set[int], float]:
    """Halfway, some steps after a checkpoint: all workers' pids, and how far they were."""
    for _ in run.looks():
        share = run.share_trained()
        if share is not None and share * STEPS > STEPS / 2 + 1:
            workers = run.processes("RayTrainWorker")
            workers[-1].kill()
            return {worker.pid for worker in workers}, share
    raise AssertionError(run.report())


def _next_workers(run: Run, before: set[int]) -> tuple[set[int], float]:
    """Those that took over, and which share they told first."""
    for _ in run.looks():
        if not any(map(psutil.pid_exists, before)):
            run.forget()
            break
    for _ in run.looks():
        if (share := run.share_trained()) is not None:
            return {worker.pid for worker in run.processes("RayTrainWorker")}, share
    raise AssertionError(run.report())


@pytest.mark.prove
def test_pruned_distilled_and_quantized_it_passes_gate_and_report_whatever_was_killed(broken: Broken) -> None:
    report = broken.report
    assert [step.step["do"] for step in report.steps] == ["narrow_ffn", "distil", "quantize"]
    assert report.gate.kl <= report.gate.kl_limit
    assert [quality.executor for quality in report.quality] == ["transformers", "vllm"]
    found = report.steps[1].found
    curve = found["learning_curve"]
    assert curve["step"] == list(range(1, STEPS + 1))
    assert curve["seconds"] == sorted(curve["seconds"])
    assert sum(curve["loss"][-5:]) < 0.7 * sum(curve["loss"][:5])
    assert report.steps[1].seconds > found["teacher_seconds"] > 0


@pytest.mark.prove
def test_the_source_is_asked_for_the_missing_shards_only(broken: Broken) -> None:
    assert 4 <= len(broken.first_shards) < len(broken.shards) == BLOCKS // ROWS
    assert broken.first_shards.items() <= broken.shards.items()


@pytest.mark.prove
def test_training_goes_on_from_the_checkpoint_when_a_worker_was_killed(broken: Broken) -> None:
    before, after = broken.workers
    assert len(before) == len(after) == 2
    assert not before & after
    checkpoint = round(broken.killed_at * STEPS) // CHECKPOINT_EVERY * CHECKPOINT_EVERY
    assert round(broken.went_on_at * STEPS) > checkpoint


@pytest.mark.prove
def test_it_ends_where_a_run_that_nobody_killed_does(broken: Broken, tmp_path: Path) -> None:
    """Two workers again, but without Ray, and taught by the same shards."""
    for shards in broken.store.glob("teacher-*"):
        (tmp_path / shards.name).symlink_to(shards)
    recipe, parent = validate(yaml.safe_load(RECIPE)), resolve("tiny")
    said, parent_hash = stages.texts(recipe, stages.tokenizer(parent)), kept.checkpoint_hash(parent)
    shared = Spread(teach=unwanted, train=train_here)
    needs = flow.Needs(memory_bytes=0)
    places = flow.carry_out(recipe, parent, parent_hash, said, tmp_path, flow.here, needs, shared)
    losses = (broken.report.steps[1].found, steps.done(places[1]).found)
    one, other = (found["learning_curve"]["loss"] for found in losses)
    assert one == pytest.approx(other, rel=0.02)
    read = stages.read(places[-1], None, said, tmp_path / "read", lambda doing, share: None)
    undisturbed = statistics.perplexity(Scores.load(read / stages.EVALUATION).nats).value
    assert broken.report.quality[0].perplexity.value == pytest.approx(undisturbed, rel=0.02)


def test_workers_of_ray_train_that_share_shards_end_with_the_same_student(tmp_path: Path) -> None:
    """As one worker without Ray does, and as two that each hold all of it."""
    command = [sys.executable, "-m", "tests.compress.ray_workers", str(tmp_path)]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    alone = job(tmp_path / "alone", distil())
    training.train(alone, 0, unheard)
    curve, weights = training_state.curve(alone.folder).loss, load_file(alone.folder / training.TRAINED)
    for name in WAYS:
        folder = tmp_path / name / alone.folder.name
        assert training_state.curve(folder).loss == pytest.approx(curve, rel=1e-3)
        theirs = load_file(folder / training.TRAINED)
        for weight, value in weights.items():
            torch.testing.assert_close(theirs[weight], value, rtol=1e-2, atol=1e-3)
