"""How is a run ended from another terminal?"""

import signal

from rich.console import Console

from cluster import runs
from cluster.processes import marked, send, wait
from cluster.runs import Run
from headrace import leftovers
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
    elif runs.lives(run):
        _end_driver(run, steps)
        if runs.read(runs_folder(), name) == run or marked(run.id):
            steps.say(f"✓ cleared away what it left: {leftovers.clear(run)}")
    else:
        leftovers.sweep(name, steps)


def _end_driver(run: Run, steps: Steps) -> None:
    processes = 1 + len(marked(run.id))
    with steps.step(
        f"Ending run {run.name!r}, driver pid {run.driver.pid}",
        f"Run {run.name!r} ended: {processes} processes",
    ):
        send(run.driver, signal.SIGTERM)
        if wait((run.driver,), PATIENCE_S):
            send(run.driver, signal.SIGKILL)
            wait((run.driver,), 5.0)


def _nothing(name: str) -> str:
    others = [run.name for run in runs.read_all(runs_folder()) if run.name != name]
    hint = f"; recorded are: {', '.join(others)}" if others else ""
    return f"no run {name!r} is recorded here, nothing to end{hint}"
