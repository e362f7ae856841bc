"""`headrace stop` ends what is recorded and marked, and nothing else."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from cluster import runs
from cluster.processes import MARK, Process, end_run, identify, is_alive
from cluster.runs import Run

WAITS = "import time; print('up', flush=True); time.sleep(600)"


class Machine:
    """A state folder, and real processes that end with the test."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.temporary = folder / "ray-of-the-run"
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, code: str, run_id: str) -> Process:
        environment = {**os.environ, MARK: run_id} if run_id else dict(os.environ)
        child = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        self.started.append(child)
        assert child.stdout is not None
        child.stdout.readline()
        process = identify(child.pid)
        assert process is not None
        return process

    def record(self, driver: Process) -> Run:
        (self.temporary / "ray" / "session_2026" / "logs").mkdir(parents=True)
        (self.temporary / "ray" / "session_2026" / "logs" / "gcs.log").write_text("why it died")
        (self.state / "runs").mkdir(parents=True)
        run = Run(
            name="default",
            id=uuid4().hex,
            driver=driver,
            url="http://127.0.0.1:1",
            models=("tiny",),
            folder=str(self.temporary),
            started_at_s=0.0,
        )
        runs.write(self.state / "runs", run)
        return run

    def stop(self, name: str = "default") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "headrace", "stop", "--name", name],
            env={**os.environ, "HEADRACE_STATE": str(self.state)},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    for run in runs.read_all(machine.state / "runs"):
        end_run(run.id, grace_s=0)
    for child in machine.started:
        child.kill()
        child.communicate()


def test_a_dead_run_is_cleared_away_and_its_logs_are_kept(machine: Machine) -> None:
    run = machine.record(Process(pid=2**22 + 1, started_ticks=1))
    left = machine.start(WAITS, run.id)
    other = machine.start(WAITS, uuid4().hex)
    stopped = machine.stop()
    assert stopped.returncode == 0
    assert "had died: 1 processes ended, logs kept in " in stopped.stdout
    assert not is_alive(left)
    assert is_alive(other)
    assert not machine.temporary.exists()
    assert (machine.state / "logs" / f"default-{run.id}" / "gcs.log").read_text() == "why it died"
    assert "nothing to end" in machine.stop().stdout


def test_a_live_driver_is_asked_and_what_it_leaves_is_ended(machine: Machine) -> None:
    driver = machine.start(WAITS, "")
    run = machine.record(driver)
    left = machine.start(WAITS, run.id)
    stopped = machine.stop()
    assert stopped.returncode == 0
    assert "Run 'default' ended: 2 processes" in stopped.stdout
    assert "cleared away what it left: 1 processes ended" in stopped.stdout
    assert not is_alive(driver)
    assert not is_alive(left)
    assert runs.read(machine.state / "runs", "default") is None


def test_a_process_that_took_over_the_drivers_pid_is_spared(machine: Machine) -> None:
    later = machine.start(WAITS, "")
    machine.record(replace(later, started_ticks=later.started_ticks - 1))
    assert machine.stop().returncode == 0
    assert is_alive(later)


def test_another_name_is_left_alone_and_what_is_recorded_is_named(machine: Machine) -> None:
    run = machine.record(machine.start(WAITS, ""))
    stopped = machine.stop("second")
    assert stopped.returncode == 0
    assert "recorded are: default" in stopped.stdout
    assert runs.lives(run)
