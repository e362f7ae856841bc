"""Which processes belong to a run, and how do they end? By a mark in the environment; Linux only."""

import os
import select
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

MARK = "HEADRACE_RUN"
"""Environment variable that every process of a run inherits; its value is the run's id."""
TRACKER = "multiprocessing.resource_tracker"
"""Python's helper that unlinks shared memory once its owner is gone: always the last to be killed."""
SHARED = ("/dev/shm/psm_", "/dev/shm/sem.mp-", "/dev/shm/vllm_dist_")
"""How Python's multiprocessing and vLLM name what their processes share."""
KILL_S = 5.0
"""Seconds in which a killed process goes, on a machine that is busy."""
TRACKER_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """A process, told from a later one with the same pid by its start time (clock ticks after boot)."""

    pid: int
    started_ticks: int


def identify(pid: int) -> Process | None:
    """The live process with this pid; None where there is none, or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else Process(pid=pid, started_ticks=int(fields[19]))


def is_alive(process: Process) -> bool:
    """Whether this very process still runs."""
    return identify(process.pid) == process


def command_line(process: Process) -> str:
    """What the process says it is; empty when it is gone."""
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def all_marked() -> dict[str, tuple[Process, ...]]:
    """Every process that carries a run's mark, by run id, the calling one left out."""
    found: dict[str, tuple[Process, ...]] = {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        run_id = _mark(pid)
        if run_id is not None and pid != os.getpid() and (process := identify(pid)) is not None:
            found[run_id] = (*found.get(run_id, ()), process)
    return found


def marked(run_id: str) -> tuple[Process, ...]:
    """Every process that carries the mark of this run, the calling one left out."""
    return all_marked().get(run_id, ())


def send(process: Process, number: signal.Signals) -> None:
    """Signals this very process, never a later one with its pid; nothing when it is gone."""
    with suppress(ProcessLookupError, PermissionError):
        descriptor = os.pidfd_open(process.pid)
        try:
            if is_alive(process):
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def wait(processes: Iterable[Process], timeout_s: float) -> tuple[Process, ...]:
    """Waits until all are gone; returns those that are not after `timeout_s`."""
    processes, deadline_s = tuple(processes), monotonic() + timeout_s
    for process in processes:
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(process.pid)
            try:
                if is_alive(process):
                    _readable([descriptor], max(0.0, deadline_s - monotonic()))
            finally:
                os.close(descriptor)
    return tuple(process for process in processes if is_alive(process))


def first_gone(processes: Iterable[Process], timeout_s: float | None = None) -> bool:
    """Waits until one of the processes is gone; False when `timeout_s` passed first."""
    descriptors: list[int] = []
    try:
        for process in processes:
            if not is_alive(process):
                return True
            descriptors.append(os.pidfd_open(process.pid))
        return bool(_readable(descriptors, timeout_s))
    except ProcessLookupError:
        return True
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def end_run(run_id: str, *, grace_s: float) -> tuple[Process, ...]:
    """Ends every process of a run: SIGTERM, after `grace_s` SIGKILL. Returns those that outlived it.

    What they shared in memory goes with them.
    """
    asked, shared = marked(run_id), shared_memory(run_id)
    for process in asked:
        send(process, signal.SIGTERM)
    wait(asked, grace_s)
    for last in (False, True):
        killed = tuple(process for process in marked(run_id) if last or TRACKER not in command_line(process))
        for process in killed:
            send(process, signal.SIGKILL)
        wait(killed, KILL_S)
        # A tracker ends by itself when its owner is gone, after unlinking what the owner shared.
        wait(marked(run_id), TRACKER_S)
    if left := marked(run_id):
        return left
    for path in shared:
        path.unlink(missing_ok=True)
    return ()


def shared_memory(run_id: str) -> frozenset[Path]:
    """Files of shared memory and semaphores that processes of a run map, and that have a name still."""
    lines = (line for process in marked(run_id) for line in _maps(process) if "/dev/shm/" in line)
    names = {line.split(maxsplit=5)[-1] for line in lines}
    return frozenset(Path(name) for name in names if name.startswith(SHARED) and not name.endswith("(deleted)"))


def _mark(pid: int) -> str | None:
    prefix = f"{MARK}=".encode()
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((line.removeprefix(prefix).decode() for line in variables if line.startswith(prefix)), None)


def _readable(descriptors: list[int], timeout_s: float | None) -> list[tuple[int, int]]:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return poll.poll(None if timeout_s is None else timeout_s * 1000)


def _maps(process: Process) -> list[str]:
    try:
        return Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    except OSError:
        return []
