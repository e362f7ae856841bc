"""How much faster do two workers train a student than one? Steps a second, side by side in one run, one thread each.

    python -m benchmarks.distil_workers --output docs/evidence/distil_workers.json

Each round does the same steps three times, in processes of their own: by one worker, by two that share each step's
blocks and exchange gradients by gloo, as a recipe's `workers: 2` does, and by two that have half of the blocks each and
exchange nothing, which is what the machine itself gives for a second process. Each one's first step is not counted. CPU
seconds are told too: what else runs on the machine moves them little, but they leave out waiting for each other.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from benchmarks.machine_facts import circumstances
from compress import teacher, training
from compress.recipe import Distil
from compress.scores import Scores
from compress.teacher import Lot
from compress.training import Course, Training

WORKERS = 2
SHARDS = 2
TOP_K = 32


@dataclass(frozen=True, kw_only=True)
class Round:
    """Steps a second, counted in steps of the whole batch."""

    one: float
    together: float
    apart: float
    """Two that exchange nothing."""
    one_cpu_s: float
    """Of a step."""
    together_cpu_s: float
    """Of each of the two, the greater one."""
    load_average: float
    """When the round began."""


def main(argv: Sequence[str] | None = None) -> None:
    """Measures each round and writes or prints the figures."""
    options = _options(argv)
    student = options.student or _sample()
    step = Distil.model_validate(
        {
            "do": "distil",
            "steps": options.steps + 2,  # the first is not counted, the last would write a checkpoint
            "batch_blocks": options.batch_blocks,
            "text": {"blocks": SHARDS * teacher.ROWS, "tokens": options.tokens},
            "precision": options.precision,
            "learning_rate": 1e-6,
            "checkpoint_every": options.steps + 2,
        }
    )
    facts = circumstances()
    rounds = []
    for number in range(options.rounds):
        rounds.append(measure(student, step))
        print(f"round {number + 1}: {json.dumps(vars(rounds[-1]))}", file=sys.stderr, flush=True)
    asked = {"student": student.name, "threads_each": 1, **step.model_dump(include={"batch_blocks", "precision"})}
    asked |= {"tokens": options.tokens, "steps_counted": options.steps}
    text = json.dumps(facts | {"asked": asked, **summed_up(rounds)}, indent=1)
    options.output.write_text(text + "\n") if options.output else print(text)


def measure(student: Path, step: Distil) -> Round:
    """One round."""
    load, half = os.getloadavg()[0], step.model_copy(update={"batch_blocks": step.batch_blocks // WORKERS})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        learn(folder / "lessons", step.text.tokens, _vocabulary(student))

        def jobs(way: str, asked: Distil, count: int) -> list[Training]:
            folders = [folder / f"{way}-{number}" for number in range(count)]
            for each in folders:
                each.mkdir()
            return [
                Training(student=student, lessons=folder / "lessons", step=asked, seed=0, folder=each)
                for each in folders
            ]

        two = step.model_copy(update={"workers": WORKERS})
        (one,) = _paces(jobs("one", step, 1))
        together = _paces(jobs("together", two, 1) * WORKERS)
        apart = _paces(jobs("apart", half, WORKERS))
    return Round(
        one=one.steps_per_s,
        together=min(each.steps_per_s for each in together),
        apart=sum(each.steps_per_s for each in apart) / WORKERS,
        one_cpu_s=one.cpu_s,
        together_cpu_s=max(each.cpu_s for each in together),
        load_average=load,
    )


def summed_up(rounds: Sequence[Round]) -> dict[str, Any]:
    """The rounds, and how two compare with one: each round's ratio, their median, least and most."""
    ratios = {
        "two_workers_over_one": [one.together / one.one for one in rounds],
        "two_that_exchange_nothing_over_one": [one.apart / one.one for one in rounds],
        "cpu_seconds_of_one_over_each_of_two": [one.one_cpu_s / one.together_cpu_s for one in rounds],
    }
    return {"rounds": [vars(one) for one in rounds]} | {name: _spread(values) for name, values in ratios.items()}


def learn(place: Path, tokens: int, vocabulary: int) -> None:
    """Answers of a source that are made up: what they say costs nothing."""
    chance = np.random.default_rng(0)
    shape = (teacher.ROWS, tokens - 1, min(TOP_K, vocabulary - 1))
    place.mkdir()
    for number in range(SHARDS):
        rows = chance.integers(0, vocabulary, (teacher.ROWS, tokens)).tolist()
        said = Scores(
            nats=np.ones(shape[:2], np.float32),
            likeliest=chance.integers(0, vocabulary, shape).astype(np.int32),
            logprobs=np.full(shape, -4.0, np.float32),
        )
        teacher.keep(place, Lot(number=number, rows=tuple(map(tuple, rows))), lambda _, said=said: said)


@dataclass(frozen=True, kw_only=True)
class _Pace:
    """Of one process."""

    steps_per_s: float
    cpu_s: float
    """Of a step."""


def _paces(jobs: list[Training]) -> list[_Pace]:
    """Of one process for each job; those of one job exchange gradients."""
    spawn(_worker, (jobs,), nprocs=len(jobs))
    return [_pace(json.loads(_seconds(job, rank).read_text())) for rank, job in enumerate(jobs)]


def _pace(ends: Sequence[tuple[float, float]]) -> _Pace:
    steps, (first_s, first_cpu_s), (last_s, last_cpu_s) = len(ends) - 1, ends[0], ends[-1]
    return _Pace(steps_per_s=steps / (last_s - first_s), cpu_s=(last_cpu_s - first_cpu_s) / steps)


def _worker(rank: int, jobs: list[Training]) -> None:
    torch.set_num_threads(1)
    job, together = jobs[rank], jobs[rank].step.workers > 1
    if together:
        meeting = f"file://{job.folder / 'meeting'}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=job.step.workers)
    model = training.share(training.begin(job.student, torch.device("cpu")), job.step, torch.device("cpu"))
    optimizer = training.adamw(model, job.step)
    course = Course(job=job, model=model, optimizer=optimizer, tell=_silent, rank=rank if together else 0)
    ends = []
    for _ in range(job.step.steps - 1):
        course.passed(training.one_step(course))
        ends.append((time.perf_counter(), time.process_time()))
    _seconds(job, rank).write_text(json.dumps(ends))
    if together:
        dist.destroy_process_group()


def _silent(doing: str, share: float | None) -> None:
    """Hears and says nothing."""


def _seconds(job: Training, rank: int) -> Path:
    return job.folder / f"seconds-{rank}.json"


def _spread(ratios: Sequence[float]) -> dict[str, Any]:
    return {"median": float(np.median(ratios)), "least": min(ratios), "most": max(ratios), "each": list(ratios)}


def _vocabulary(student: Path) -> int:
    return json.loads((student / "config.json").read_text())["vocab_size"]


def _sample() -> Path:
    from headrace.fetching import resolve

    return resolve("smollm2")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, help="a checkpoint's folder; default: the sample model")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2, help="counted in each round")
    parser.add_argument("--batch-blocks", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=512, help="of a block")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--output", type=Path, help="file for the JSON; else it is printed")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
