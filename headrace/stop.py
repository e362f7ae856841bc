"""How is a run ended from another terminal?"""

import signal

from rich.console import Console

from cluster import runs
from cluster.processes import marked, send, wait
from cluster.runs import Run
from headrace import leftovers
from headrace.failure import Failure
from headrace.folders import runs_folder
from headrace.steps import Steps

PATIENCE_S = 45.0
"""Longer than a driver takes to finish streams and to end Ray."""


def stop(name: str) -> None:
    """Asks the driver to end, then ends what carries the run's mark. Raises Failure if something stays."""
    steps = Steps(Console(highlight=False))
    run = runs.read(runs_folder(), name)
    if run is None:
        steps.say(_nothing(name))
        return
    count = len(marked(run.id))
    if runs.lives(run):
        with steps.step(f"Ending run {name!r} (driver pid {run.driver.pid})", "Driver ended"):
            send(run.driver, signal.SIGTERM)
            if wait((run.driver,), PATIENCE_S):
                send(run.driver, signal.SIGKILL)
                wait((run.driver,), 5.0)
        steps.say(f"✓ run {name!r} and its {count} processes ended")
    _clear(run, steps)


def _clear(run: Run, steps: Steps) -> None:
    if runs.read(runs_folder(), run.name) is not None or marked(run.id):
        steps.say(f"✓ cleared away what it left: {leftovers.clear(run)}")
    if left := marked(run.id):
        raise Failure(f"can't be ended: pids {', '.join(str(process.pid) for process in left)}")


def _nothing(name: str) -> str:
    others = [run.name for run in runs.read_all(runs_folder()) if run.name != name]
    hint = f"; recorded are: {', '.join(others)}" if others else ""
    return f"no run {name!r} is recorded here, nothing to end{hint}"
