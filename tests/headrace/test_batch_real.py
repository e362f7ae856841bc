"""A job on a real engine: interrupted or killed, gone on with, and answered as the model answers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pytest

from cluster.processes import first_gone, identify
from headrace.fetching import resolve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROWS, PARTITION, TOKENS = 90, 15, 48
PROMPTS = ("A class is", "The def statement", "Modules and packages:")
START_S = 400.0
ENGINE = ("--dtype", "float32", "--max-model-len", "256", "--max-num-seqs", "8", "--kv-cache-memory-bytes", "67108864")


def ask(folder: Path) -> None:
    asked = [{"n": number, "prompt": PROMPTS[number % len(PROMPTS)]} for number in range(ROWS)]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))


def start(folder: Path, log: Path, out: str = "out") -> subprocess.Popen[bytes]:
    asked = ("batch", "run", "in.jsonl", out, "--model", "tiny", "--partition-rows", str(PARTITION))
    more = ("--max-tokens", str(TOKENS), "--temperature", "0", "--sampling", '{"ignore_eos": true}', "--", *ENGINE)
    env = {**os.environ, "HEADRACE_STATE": str(folder / "state")}
    with log.open("wb") as output:
        command = [sys.executable, "-m", "headrace", *asked, *more]
        return subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=output)


def runs_until(job: subprocess.Popen[bytes], parts: Path, count: int, log: Path) -> None:
    """Until so many parts are there."""
    process, end_s = identify(job.pid), monotonic() + START_S
    assert process is not None
    while len(list(parts.glob("part-*"))) < count:
        assert not first_gone((process,), 0.05), log.read_text()
        assert monotonic() < end_s, log.read_text()


def ours(folder: Path) -> list[psutil.Process]:
    """Live processes with the test's state folder."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("HEADRACE_STATE") == str(folder / "state")
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def rows(folder: Path) -> list[dict[str, Any]]:
    parts = sorted((folder / "out").glob("part-*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def greedy(prompt: str) -> str:
    """What transformers makes of it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve("tiny"))
    model: Any = AutoModelForCausalLM.from_pretrained(resolve("tiny"), dtype=torch.float32)
    asked = ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        for _ in range(TOKENS):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    return tokenizer.decode(ids[0, asked.shape[1] :], skip_special_tokens=True)


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path: Path) -> Iterator[None]:
    """Whatever the test found."""
    yield
    for process in ours(tmp_path):
        process.kill()


def test_a_job_is_interrupted_leaves_nothing_and_goes_on(tmp_path: Path) -> None:
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ask(tmp_path)
    log, parts = tmp_path / "log", tmp_path / "out"
    job = start(tmp_path, log)
    runs_until(job, parts, 1, log)
    job.send_signal(signal.SIGINT)
    assert job.wait(60) == 130, log.read_text()
    assert "what is written stays; the same command does the" in log.read_text()
    assert ours(tmp_path) == []
    before = {part: part.stat().st_mtime_ns for part in parts.glob("part-*")}
    assert 0 < len(before) < ROWS // PARTITION
    assert not list(parts.glob(".part-*"))

    again = start(tmp_path, log)
    assert again.wait(START_S) == 0, log.read_text()
    assert "left" in log.read_text()
    assert ours(tmp_path) == []
    assert {part: part.stat().st_mtime_ns for part in before} == before, "what was there is not made again"
    said = rows(tmp_path)
    assert [row["n"] for row in said] == list(range(ROWS))
    assert {(row["finish_reason"], row["output_tokens"], row["error"]) for row in said} == {("length", TOKENS, None)}
    for prompt in PROMPTS:
        assert {row["answer"] for row in said if row["prompt"] == prompt} == {greedy(prompt)}


@pytest.mark.prove
def test_engine_and_command_are_killed_and_every_row_has_the_answer_of_an_undisturbed_job(tmp_path: Path) -> None:
    ask(tmp_path)
    log, parts = tmp_path / "log", tmp_path / "out"
    undisturbed = start(tmp_path, log, "undisturbed")
    assert undisturbed.wait(START_S) == 0, log.read_text()

    job = start(tmp_path, log)
    runs_until(job, parts, 1, log)
    (engine,) = [process for process in ours(tmp_path) if "EngineCore" in process.name()]
    engine.kill()
    assert job.wait(60) == 1, log.read_text()
    assert "the engine died" in log.read_text()
    assert "the same command does the" in log.read_text()
    assert ours(tmp_path) == []
    written = len(list(parts.glob("part-*")))

    job = start(tmp_path, log)
    runs_until(job, parts, written + 1, log)
    its = ours(tmp_path)
    job.kill()
    job.wait()
    psutil.wait_procs(its, timeout=60)
    assert ours(tmp_path) == []
    before = {part: part.stat().st_mtime_ns for part in parts.glob("part-*")}
    assert written < len(before) < ROWS // PARTITION

    job = start(tmp_path, log)
    assert job.wait(START_S) == 0, log.read_text()
    assert {part: part.stat().st_mtime_ns for part in before} == before, "what was there is not made again"
    made = {part.name: part.read_bytes() for part in parts.glob("*part-*")}
    assert made == {part.name: part.read_bytes() for part in (tmp_path / "undisturbed").glob("*part-*")}
    assert [row["n"] for row in rows(tmp_path)] == list(range(ROWS))
