"""An engine process ends when its parent is killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

PARENT = """
import multiprocessing, sys
from tests.deployments import test_parent_watch

if __name__ == "__main__":
    target = getattr(test_parent_watch, sys.argv[1])
    process = multiprocessing.get_context("spawn").Process(target=target)
    process.start()
    print(process.pid, flush=True)
    process.join()
"""


def child() -> None:
    """An engine core in small: it watches, and would else stay until it is told to go."""
    from deployments.parent_watch import watch_parent

    watch_parent()
    print("watching", flush=True)
    signal.pause()


def late_child() -> None:
    """The same, whose parent is gone before it could watch."""
    from deployments.parent_watch import watch_parent

    print("waiting", flush=True)
    parent = multiprocessing.parent_process()
    assert parent is not None
    while os.getppid() == parent.pid:
        time.sleep(0.01)
    watch_parent()
    signal.pause()


def has_ended(process: psutil.Process) -> bool:
    """Whether it runs no more; its new parent may take seconds to collect it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(("target", "word"), [("child", "watching"), ("late_child", "waiting")])
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path, target: str, word: str) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, str(script), target],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    ) as parent:
        assert parent.stdout is not None
        watched = psutil.Process(int(parent.stdout.readline()))
        assert parent.stdout.readline() == f"{word}\n"
        parent.kill()
        end_s = time.monotonic() + 2.0
        while not has_ended(watched):
            assert time.monotonic() < end_s
            time.sleep(0.005)


def test_a_process_that_nobody_spawned_watches_nothing() -> None:
    from deployments.parent_watch import watch_parent

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pidfd_open", lambda pid: pytest.fail("there is no parent to watch"))
        watch_parent()
