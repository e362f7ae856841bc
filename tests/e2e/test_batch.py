"""Rows are answered by a job of a cluster's Ray, on its nodes, and the job goes on where it was."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.typed import DetachedFleet, detached_fleet, headrace

pytestmark = [pytest.mark.prove, pytest.mark.timeout(600)]

FLEET = """
models: [{name: tiny, source: tiny, replicas: {min: 0, max: 1}}]
router: {port: {port}}
"""
ENGINE = ("--dtype", "float32", "--max-model-len", "256", "--kv-cache-memory-bytes", "67108864")
ROWS = 20


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DetachedFleet]:
    """A Ray whose fleet sleeps."""
    fleet = detached_fleet(tmp_path_factory.mktemp("batch"), FLEET)
    fleet.start()
    yield fleet
    fleet.stop()
    assert fleet.processes() == []


def answered(fleet: DetachedFleet, folder: Path, *more: str) -> str:
    job = ("batch", "run", str(folder / "in.jsonl"), str(folder / "out"), "--model", "tiny", "--partition-rows", "5")
    sampling = ("--max-tokens", "8", "--temperature", "0", *more, "--cpus", "0.1", "--", *ENGINE)
    done = headrace("submit", *job, *sampling, env=fleet.env, timeout_s=400.0)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_job_has_the_nodes_of_its_cluster_answer_and_goes_on(fleet: DetachedFleet, tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": "A class is", "n": number}) for number in range(ROWS)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    answered(fleet, tmp_path, "--cluster")
    parts = sorted((tmp_path / "out").glob("part-*"))
    rows = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    assert [row["n"] for row in rows] == list(range(ROWS))
    (text,) = {row["answer"] for row in rows}
    assert text
    parts[1].unlink()
    said = answered(fleet, tmp_path)
    assert "of which 1 (5 rows) are not in" in said
    again = [json.loads(line) for line in parts[1].read_text().splitlines()]
    assert again == rows[5:10], "by an engine of one node as by those of all"
