"""Rows are answered by a job of a cluster's Ray, on its nodes; one that is stopped leaves no engine, and goes on."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pytest

from tests.e2e.typed import DetachedFleet, detached_fleet, headrace, title

pytestmark = [pytest.mark.prove, pytest.mark.timeout(900)]

FLEET = """
models: [{name: tiny, source: tiny, replicas: {min: 0, max: 1}}]
router: {port: {port}}
"""
ENGINE = ("--dtype", "float32", "--max-model-len", "256", "--max-num-seqs", "4", "--kv-cache-memory-bytes", "67108864")
ROWS, PARTITION, TOKENS = 60, 5, 48
PROMPTS = ("A class is", "The def statement", "Modules and packages:")
JOB_S = 400.0
OF_A_JOB = ("VLLM", "headrace batch run", "MapWorker", "cluster.keeper")
"""In titles of a job's processes: its engines, its driver, their actors, and the keeper of a Ray of its own."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DetachedFleet]:
    """A Ray whose fleet sleeps."""
    fleet = detached_fleet(tmp_path_factory.mktemp("batch"), FLEET)
    fleet.start()
    yield fleet
    fleet.stop()
    assert fleet.processes() == []


def words(folder: Path, *more: str) -> tuple[str, ...]:
    job = ("batch", "run", str(folder / "in.jsonl"), str(folder / "out"), "--model", "tiny")
    asked = ("--partition-rows", str(PARTITION), "--max-tokens", str(TOKENS), "--temperature", "0")
    sampling = ("--sampling", '{"ignore_eos": true}')
    return ("submit", "--cpus", "0.1", "--stop-on-interrupt", *job, *asked, *sampling, *more, "--", *ENGINE)


def of_a_job(fleet: DetachedFleet) -> set[psutil.Process]:
    return {process for process in fleet.processes() if any(word in title(process) for word in OF_A_JOB)}


def stopped_at_its_first_part(fleet: DetachedFleet, folder: Path, *more: str) -> None:
    """Ends when nothing of the job is left."""
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before, log, end_s = of_a_job(fleet), folder / "log", monotonic() + JOB_S
    with log.open("wb") as output:
        command = [sys.executable, "-m", "headrace", *words(folder, *more)]
        job = subprocess.Popen(command, env=fleet.env, stdout=output, stderr=output)
    while not list((folder / "out").glob("part-*")):
        assert monotonic() < end_s, log.read_text()
        try:
            pytest.fail(f"it ended, {job.wait(0.1)}: {log.read_text()}")
        except subprocess.TimeoutExpired:
            continue
    its = of_a_job(fleet) - before
    assert any("VLLM" in title(process) for process in its)
    job.send_signal(signal.SIGINT)
    assert job.wait(60) == 130, log.read_text()
    assert "is told to stop" in log.read_text()
    psutil.wait_procs(its, timeout=60)
    assert [title(process) for process in of_a_job(fleet) - before] == []


def rows(folder: Path) -> list[dict[str, Any]]:
    parts = sorted((folder / "out").glob("part-*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


@pytest.mark.parametrize(("first", "then"), [(("--cluster",), ()), ((), ("--cluster",))], ids=["nodes", "node"])
def test_a_stopped_job_leaves_no_engine_and_another_goes_on(
    fleet: DetachedFleet, tmp_path: Path, first: tuple[str, ...], then: tuple[str, ...]
) -> None:
    asked = [{"n": number, "prompt": PROMPTS[number % len(PROMPTS)]} for number in range(ROWS)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    stopped_at_its_first_part(fleet, tmp_path, *first)
    before = {part: part.stat().st_mtime_ns for part in (tmp_path / "out").glob("part-*")}
    assert 0 < len(before) < ROWS // PARTITION
    done = headrace(*words(tmp_path, *then), env=fleet.env, timeout_s=JOB_S)
    assert done.returncode == 0, done.stdout + done.stderr
    left = ROWS // PARTITION - len(before)
    assert f"of which {left} ({left * PARTITION} rows) are not in" in done.stdout
    assert {part: part.stat().st_mtime_ns for part in before} == before, "what was there is not made again"
    said = rows(tmp_path)
    assert [row["n"] for row in said] == list(range(ROWS))
    assert {(row["finish_reason"], row["output_tokens"], row["error"]) for row in said} == {("length", TOKENS, None)}
    for prompt in PROMPTS:
        (text,) = {row["answer"] for row in said if row["prompt"] == prompt}
        assert text, "one engine's as another's"
