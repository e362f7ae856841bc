"""`headrace submit` sends a command with its files to a cluster, shows what it prints, and says how it ended."""

import signal
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus
from rich.console import Console

from headrace.failure import Failure
from headrace.steps import Steps
from headrace.submit import MOST_BYTES, Wish, command, packed, submit


@dataclass
class Cluster:
    """Takes jobs; each prints and ends as it is told here."""

    prints: tuple[str, ...] = ("working\n",)
    ends: JobStatus = JobStatus.SUCCEEDED
    code: int | None = 0
    refuses: str = ""
    interrupts: bool = False
    """The user presses Ctrl-C when something was printed."""
    jobs: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)

    def submit_job(self, **job: Any) -> str:
        if self.refuses:
            raise RuntimeError(self.refuses)
        self.jobs.append(job)
        folder = Path(job["runtime_env"]["working_dir"])
        self.files = {file.name: file.read_text() for file in folder.iterdir()}
        return "job-1"

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        for text in self.prints:
            yield text
            if self.interrupts:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def get_job_info(self, job_id: str) -> Any:
        return SimpleNamespace(status=self.ends, message="why\nno room", driver_exit_code=self.code)

    def stop_job(self, job_id: str) -> bool:
        self.stopped.append(job_id)
        return True


def wish(*words: str, **options: Any) -> Wish:
    asked: dict[str, Any] = {"name": "default", "address": None, "token_file": None}
    asked |= {"cpus": 1.0, "gpus": 0.0, "memory_gb": 0.0, "detach": False, "stop_on_interrupt": False}
    return Wish(words=list(words), **asked | options)


def submits(cluster: Cluster, *words: str, **options: Any) -> None:
    submit(cluster, wish(*words, **options), "http://head:8265", Steps(Console(highlight=False)), "python")


def test_a_command_goes_with_its_files_and_prints_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, fleet = tmp_path / "a trace.csv", tmp_path / "fleet.yaml"
    trace.write_text("at_s\n")
    fleet.write_text("models: []\n")
    cluster = Cluster()
    submits(cluster, "simulate", "--trace", str(trace), "--fleet", str(fleet), "--gpu", "h100", gpus=1.0, memory_gb=2.5)
    (job,) = cluster.jobs
    assert job["entrypoint"] == "python -m headrace simulate --trace 'a trace.csv' --fleet fleet.yaml --gpu h100"
    assert (job["entrypoint_num_cpus"], job["entrypoint_num_gpus"], job["entrypoint_memory"]) == (1, 1, 2_500_000_000)
    assert cluster.files == {"a trace.csv": "at_s\n", "fleet.yaml": "models: []\n"}
    said = capsys.readouterr().out
    assert "working\n" in said
    assert "✓ Job job-1 is done" in said


def test_files_of_one_name_travel_as_two(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "recipe.yaml").write_text(folder)
    there = tmp_path / "there"
    there.mkdir()
    words = packed(["compress", str(tmp_path / "a" / "recipe.yaml"), str(tmp_path / "b" / "recipe.yaml")], there)
    assert words == ["compress", "recipe.yaml", "2-recipe.yaml"]
    assert [(there / word).read_text() for word in words[1:]] == ["a", "b"]


@pytest.mark.parametrize(("code", "ends"), [(2, JobStatus.FAILED), (None, JobStatus.STOPPED)])
def test_how_a_job_failed_is_said_and_is_the_exit_code(code: int | None, ends: JobStatus) -> None:
    with pytest.raises(Failure, match=rf"job job-1 {ends.value.lower()}: no room") as failure:
        submits(Cluster(ends=ends, code=code), "compress", "smollm2", "--to", "smaller")
    assert failure.value.exit_code == (code or 1)


def test_a_job_can_be_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    submits(Cluster(prints=("never shown",)), "calibrate", "tiny", detach=True)
    said = capsys.readouterr().out
    assert "ray job logs --follow job-1" in said
    assert "never shown" not in said


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts, also where whoever started the tests ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("stops", "says"), [(False, "goes on there"), (True, "is told to stop")])
def test_ctrl_c_leaves_a_job_or_ends_it_as_asked(stops: bool, says: str) -> None:
    cluster = Cluster(prints=("a", "b", "c"), interrupts=True)
    with pytest.raises(Failure, match=says) as failure:
        submits(cluster, "compress", "tiny", "--to", "w8a8", stop_on_interrupt=stops)
    assert failure.value.exit_code == 130
    assert cluster.stopped == (["job-1"] if stops else [])


def test_a_cluster_s_refusal_is_told() -> None:
    with pytest.raises(Failure, match="refused the job: no such node"):
        submits(Cluster(refuses="no such node"), "calibrate", "tiny")


@pytest.mark.parametrize("words", [[], ["serve", "tiny"], ["--cpus"]])
def test_only_what_computes_is_a_job(words: list[str]) -> None:
    with pytest.raises(Failure, match="compress, calibrate, simulate") as failure:
        command(wish(*words))
    assert failure.value.exit_code == 2


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "large.csv").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(Failure, match="100 MiB") as failure:
        submits(Cluster(), "simulate", "--trace", str(tmp_path / "large.csv"))
    assert failure.value.exit_code == 2
