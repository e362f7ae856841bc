"""A run leaves nothing behind, however it ends, and the next one starts."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import httpx
import psutil
import pytest

from cluster import runs
from cluster.processes import (
    Process,
    command_line,
    end_run,
    first_gone,
    identify,
    marked,
    shared_memory,
    wait,
)
from cluster.runs import Run

START_S = 240.0
END_S = 15.0
QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "What is a list?"}], "max_tokens": 4}


class Terminal:
    """A user's terminal: a state folder of its own, a port, and one `headrace serve` at a time."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.output = folder / "output"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.serving: subprocess.Popen[bytes] | None = None

    def type(self, *words: str) -> subprocess.Popen[bytes]:
        with self.output.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "headrace", *words],
                env={**os.environ, "HEADRACE_STATE": str(self.state)},
                stdout=output,
                stderr=output,
            )

    def said(self) -> str:
        return self.output.read_text()

    def serve(self, what: str) -> "Traces":
        """Types `headrace serve`, and returns when it says that it serves."""
        self.start(what)
        self.wait_for(lambda: "Serving tiny" in self.said())
        return Traces(self.run(), self.port)

    def start(self, what: str) -> Run:
        """Types `headrace serve`, and returns when Ray is up and the engine is not."""
        self.serving = self.type("serve", what, "--port", str(self.port))
        self.wait_for(lambda: "Deploying" in self.said())
        return self.run()

    def run(self) -> Run:
        run = runs.read(self.state / "runs", "default")
        assert run is not None
        return run

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Waits for something to happen while `headrace serve` lives."""
        assert self.serving is not None
        process, deadline_s = identify(self.serving.pid), monotonic() + START_S
        while not happened():
            gone = process is None or first_gone((process,), 0.2)
            assert not gone, self.said()
            assert monotonic() < deadline_s, self.said()


class Traces:
    """What a live run occupies: processes, ports, shared memory, files."""

    def __init__(self, run: Run, port: int) -> None:
        self.run = run
        self.processes = marked(run.id)
        pids = {process.pid for process in self.processes}
        listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        self.ports = {c.laddr.port for c in listening if c.pid in pids}
        self.shared = shared_memory(run.id)
        assert port in self.ports

    def find(self, words: str) -> Process:
        return next(process for process in marked(self.run.id) if words in command_line(process))

    @property
    def core(self) -> Process:
        """The engine's core: the replica's own child. By descent, since vLLM's titles don't always take."""
        replicas = {process.pid for process in marked(self.run.id) if "ServeReplica" in command_line(process)}
        kin = [process for process in marked(self.run.id) if psutil.Process(process.pid).ppid() in replicas]
        titles = ("VLLM::EngineCore", "spawn_main")
        return next(process for process in kin if any(title in command_line(process) for title in titles))

    def assert_gone(self, *, files: bool = True) -> None:
        """Nothing of the run is left, at most END_S from now."""
        assert wait(self.processes, END_S) == ()
        assert marked(self.run.id) == ()
        listening = {c.laddr.port for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        assert not self.ports & listening
        assert [path for path in self.shared if path.exists()] == []
        assert Path(self.run.folder).exists() is not files


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    terminal = Terminal(tmp_path)
    yield terminal
    if terminal.serving is not None:
        terminal.serving.kill()
        terminal.serving.wait()
    for run in runs.read_all(terminal.state / "runs"):
        end_run(run.id, grace_s=0)


def answers(port: int) -> bool:
    try:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        return httpx.post(url, json=QUESTION, timeout=60).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.prove
@pytest.mark.timeout(420)
def test_a_killed_core_is_replaced_and_ctrl_c_leaves_nothing(terminal: Terminal) -> None:
    core = terminal.serve("tiny").core
    os.kill(core.pid, signal.SIGKILL)
    terminal.wait_for(lambda: identify(core.pid) is None)
    terminal.wait_for(lambda: answers(terminal.port))
    traces = Traces(terminal.run(), terminal.port)
    assert traces.core != core
    assert terminal.serving is not None
    terminal.serving.send_signal(signal.SIGINT)
    assert terminal.serving.wait(END_S + 10) == 0
    traces.assert_gone()
    assert not (terminal.state / "runs" / "default.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("engines", [0, pytest.param(1, marks=pytest.mark.prove)])
def test_whatever_is_killed_nothing_stays_and_the_next_start_works(
    terminal: Terminal, tmp_path: Path, engines: int
) -> None:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(f"models: [{{name: tiny, source: tiny, replicas: {{min: {engines}, max: 1}}}}]")
    traces = terminal.serve(str(fleet))
    os.kill(traces.find("raylet/raylet").pid, signal.SIGKILL)
    assert terminal.serving is not None
    assert terminal.serving.wait(END_S) == 1
    assert "Ray ended unexpectedly: raylet" in terminal.said()
    traces.assert_gone()

    traces = terminal.serve(str(fleet))
    terminal.serving.kill()
    terminal.serving.wait()
    traces.assert_gone(files=False)
    assert terminal.type("status").wait() == 1
    assert "is dead" in terminal.said()

    run = terminal.start(str(fleet))
    assert "cleared away run 'default'" in terminal.said()
    terminal.serving.send_signal(signal.SIGINT)
    assert terminal.serving.wait(END_S + 10) == 130
    assert marked(run.id) == ()
    assert not (terminal.state / "runs" / "default.json").exists()


@pytest.fixture
def starting(terminal: Terminal) -> Run:
    """A run whose Ray is up, and whose engine is not."""
    return terminal.start("tiny")


@pytest.mark.slow
def test_stop_ends_a_run_that_is_still_starting(terminal: Terminal, starting: Run) -> None:
    assert terminal.serving is not None
    assert terminal.type("stop").wait() == 0
    assert "Run 'default' ended" in terminal.said()
    assert terminal.serving.wait() == 130
    assert marked(starting.id) == ()
    assert not Path(starting.folder).exists()


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["cluster.keeper", "ray.scripts"])
def test_when_what_stands_between_driver_and_ray_is_killed_all_ends(
    terminal: Terminal, starting: Run, victim: str
) -> None:
    assert terminal.serving is not None
    found = [process for process in marked(starting.id) if victim in command_line(process)]
    os.kill(found[-1].pid, signal.SIGKILL)
    assert terminal.serving.wait(END_S + 10) == 1
    assert "Ray ended unexpectedly" in terminal.said()
    assert marked(starting.id) == ()
    assert not Path(starting.folder).exists()
