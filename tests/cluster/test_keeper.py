"""The keeper ends a run whichever of its two neighbours dies."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from uuid import uuid4

import pytest

from cluster.processes import MARK, Process, command_line, end_run, identify, marked, send, wait

RAY = (
    "import subprocess, sys, time; child = 'import time; print(1, flush=True); time.sleep(600)';"
    "subprocess.Popen([sys.executable, '-c', child], start_new_session=True); time.sleep(600)"
)
"""Stands for Ray: a process with a child that would outlive it, and that says when it is up.

Until its program has begun, a child has no environment that others can read.
"""
DRIVER = (
    "import os, subprocess, sys, time;"
    "subprocess.Popen([sys.executable, '-m', 'cluster.keeper', sys.argv[1], str(os.getpid()),"
    " sys.executable, '-c', sys.argv[2]], start_new_session=True,"
    " env={**os.environ, sys.argv[3]: sys.argv[1]});"
    "time.sleep(600)"
)


class Story:
    """A driver, its keeper, its Ray and Ray's child, all up."""

    def __init__(self) -> None:
        self.run_id = uuid4().hex
        self.popen = subprocess.Popen([sys.executable, "-c", DRIVER, self.run_id, RAY, MARK], stdout=subprocess.PIPE)
        assert self.popen.stdout is not None
        self.popen.stdout.readline()
        self.driver = self.known(self.popen.pid)
        self.keeper = self.find("cluster.keeper")
        self.ray = self.find("child =", but=self.keeper)

    def known(self, pid: int) -> Process:
        process = identify(pid)
        assert process is not None
        return process

    def find(self, words: str, but: Process | None = None) -> Process:
        return next(p for p in marked(self.run_id) if words in command_line(p) and p != but)

    def all_gone(self) -> bool:
        return wait(marked(self.run_id), timeout_s=10) == () and marked(self.run_id) == ()


@pytest.fixture
def story() -> Iterator[Story]:
    story = Story()
    try:
        assert len(marked(story.run_id)) == 3
        yield story
    finally:
        story.popen.kill()
        end_run(story.run_id, grace_s=0)
        story.popen.communicate()


def test_when_the_driver_is_killed_nothing_stays(story: Story) -> None:
    send(story.driver, signal.SIGKILL)
    assert story.all_gone()


def test_when_ray_is_killed_nothing_but_the_driver_stays(story: Story) -> None:
    send(story.ray, signal.SIGKILL)
    assert story.all_gone()
    assert identify(story.driver.pid) == story.driver


def test_when_the_keeper_is_asked_to_end_nothing_but_the_driver_stays(story: Story) -> None:
    send(story.keeper, signal.SIGTERM)
    assert story.all_gone()
    assert identify(story.driver.pid) == story.driver


def test_when_the_keeper_itself_is_killed_the_kernel_ends_ray(story: Story) -> None:
    send(story.keeper, signal.SIGKILL)
    assert wait((story.keeper, story.ray), timeout_s=10) == ()


def test_a_keeper_without_the_mark_refuses_to_start() -> None:
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    refused = subprocess.run(
        [sys.executable, "-m", "cluster.keeper", "x", str(os.getpid()), "true"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "must be x" in refused.stderr
