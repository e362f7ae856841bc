"""Where does a run of this machine answer?"""

from cluster import runs
from cluster.runs import Run
from headrace.failure import Failure
from headrace.folders import runs_folder


def endpoint(name: str) -> str:
    """URL of a live run's router. Raises Failure."""
    return live_run(name).url


def live_run(name: str) -> Run:
    """The record of a run whose driver lives. Raises Failure, naming the runs that there are."""
    run = runs.read(runs_folder(), name)
    if run is None:
        live = [other.name for other in runs.read_all(runs_folder()) if runs.lives(other)]
        hint = f"live are: {', '.join(live)} (--name)" if live else "`headrace serve` starts one"
        raise Failure(f"no run {name!r} on this machine: {hint}")
    if not runs.lives(run):
        raise Failure(
            f"run {name!r} is dead: its driver (pid {run.driver.pid}) is gone; `headrace stop` clears it away"
        )
    return run
