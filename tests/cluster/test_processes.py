"""A run's processes are found by their mark and ended, and nobody else's."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest

from cluster.processes import (
    MARK,
    TRACKER,
    Process,
    all_marked,
    command_line,
    end_run,
    first_gone,
    identify,
    is_alive,
    marked,
    send,
    shared_memory,
    wait,
)

WAITS = "import time; print('up', flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAITS}"
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {WAITS!r}], start_new_session=True);{WAITS}"
SHARES = f"""
from multiprocessing import resource_tracker, shared_memory
memory = shared_memory.SharedMemory(create=True, size=8)
while "resource_tracker" not in open(f"/proc/{{resource_tracker._resource_tracker._pid}}/cmdline").read():
    pass  # its process is there before it says what it is
{WAITS}
"""


class Children:
    """Real processes; all of them end with the test."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, code: str, run_id: str, lines: int = 1) -> Process:
        child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, MARK: run_id}, stdout=subprocess.PIPE)
        self.started.append(child)
        assert child.stdout is not None
        for _ in range(lines):
            child.stdout.readline()
        process = identify(child.pid)
        assert process is not None
        return process


@pytest.fixture
def children() -> Iterator[Children]:
    children = Children()
    yield children
    for child in children.started:
        child.kill()
        child.communicate()


@pytest.fixture
def run_id() -> Iterator[str]:
    run_id = uuid4().hex
    yield run_id
    end_run(run_id, grace_s=0)


def test_a_run_is_its_marked_processes_and_their_children_even_in_another_session(
    children: Children, run_id: str
) -> None:
    parent = children.start(PARENT, run_id, lines=2)
    other = children.start(WAITS, uuid4().hex)
    found = marked(run_id)
    assert parent in found
    assert len(found) == 2
    assert other not in found
    assert all_marked()[run_id] == found


def test_ending_a_run_ends_grandchildren_and_spares_others(children: Children, run_id: str) -> None:
    children.start(PARENT, run_id, lines=2)
    other = children.start(WAITS, uuid4().hex)
    assert end_run(run_id, grace_s=5) == ()
    assert marked(run_id) == ()
    assert is_alive(other)


def test_a_process_that_ignores_the_polite_signal_is_killed(children: Children, run_id: str) -> None:
    deaf = children.start(DEAF, run_id)
    assert end_run(run_id, grace_s=0.1) == ()
    assert not is_alive(deaf)


def test_shared_memory_goes_with_the_run_even_if_its_tracker_was_killed(children: Children, run_id: str) -> None:
    children.start(SHARES, run_id)
    (path,) = shared_memory(run_id)
    tracker = next(other for other in marked(run_id) if TRACKER in command_line(other))
    send(tracker, signal.SIGKILL)
    assert path.exists()
    assert end_run(run_id, grace_s=0) == ()
    assert not path.exists()


def test_a_later_process_with_the_same_pid_is_another_one(children: Children, run_id: str) -> None:
    process = children.start(WAITS, run_id)
    earlier = replace(process, started_ticks=process.started_ticks - 1)
    assert not is_alive(earlier)
    send(earlier, signal.SIGKILL)
    assert is_alive(process)
    assert wait((earlier,), timeout_s=5) == ()


def test_a_zombie_is_gone(children: Children, run_id: str) -> None:
    process = children.start(WAITS, run_id)
    send(process, signal.SIGKILL)
    assert first_gone((process,), timeout_s=5)
    assert identify(process.pid) is None
    assert marked(run_id) == ()


def test_waiting_ends_with_the_first_that_goes_or_with_the_time(children: Children, run_id: str) -> None:
    one, other = children.start(WAITS, run_id), children.start(WAITS, run_id)
    assert not first_gone((one, other), timeout_s=0.05)
    assert wait((one, other), timeout_s=0.05) == (one, other)
    send(one, signal.SIGTERM)
    assert first_gone((one, other), timeout_s=5)
    assert wait((one, other), timeout_s=0.05) == (other,)


def test_nothing_is_found_of_a_process_that_never_was() -> None:
    nobody = Process(pid=2**22 + 1, started_ticks=1)
    assert identify(nobody.pid) is None
    assert command_line(nobody) == ""
    assert first_gone((nobody,), timeout_s=5)
    send(nobody, signal.SIGKILL)


def test_the_calling_process_is_never_found(run_id: str) -> None:
    code = "import sys; from cluster.processes import marked; sys.exit(len(marked(sys.argv[1])))"
    child = subprocess.run([sys.executable, "-c", code, run_id], env={**os.environ, MARK: run_id}, check=False)
    assert child.returncode == 0
