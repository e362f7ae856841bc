"""What ends a run when its driver or its Ray dies? This process: it stands between the two and watches both.

Engines that are killed leave shared memory under /dev/shm, since Ray kills Python's tracker of it with them.
The keeper notes what the run maps, and removes what no process of the run maps any more.

Run as `python -m cluster.keeper RUN_ID DRIVER_PID COMMAND...` with the run's mark in its environment. It
starts the command (Ray) as its child. When the driver or the child is gone, or SIGTERM arrives, it ends every
process of the run and then itself. Should the keeper be killed, the kernel ends Ray, and the driver the rest.
"""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from cluster.processes import MARK, Process, end_run, first_gone, identify, shared_memory

GRACE_S = 5.0
"""Seconds from SIGTERM to SIGKILL."""
LOOK_EVERY_S = 5.0
"""Seconds between looks at shared memory; one takes about 20 ms."""
PR_SET_PDEATHSIG = 1


class AskedToEnd(Exception):
    """SIGTERM arrived."""


def main(arguments: list[str]) -> int:
    """Keeps one run. Returns the exit code: 0 when asked to end, 1 when the driver or Ray died."""
    run_id, driver_pid, *command = arguments
    if os.environ.get(MARK) != run_id:
        raise SystemExit(f"{MARK} must be {run_id} in the environment, or nothing could be found again")
    shared: set[Path] = set()
    signal.signal(signal.SIGTERM, _ask)
    try:
        driver = identify(int(driver_pid))
        # Its parent's pid once more: the driver may have died before it was identified.
        if driver is not None and os.getppid() == driver.pid:
            _watch((driver, _start(command)), run_id, shared)
        code = 1
    except AskedToEnd:
        code = 0
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not end_run(run_id, grace_s=GRACE_S):
        _remove(shared)
    return code


def _watch(neighbours: tuple[Process, ...], run_id: str, shared: set[Path]) -> None:
    """Waits until one of the neighbours is gone; keeps `shared` to what the run maps."""
    while not first_gone(neighbours, LOOK_EVERY_S):
        mapped = shared_memory(run_id)
        _remove(shared - mapped)
        shared.clear()
        shared |= mapped


def _remove(paths: set[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _start(command: list[str]) -> Process:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)
    return identify(child.pid) or Process(pid=child.pid, started_ticks=0)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _ask(number: int, frame: FrameType | None) -> None:
    raise AskedToEnd


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
