"""What has a run left behind whose driver is gone, and how is it cleared away?"""

import shutil
from pathlib import Path

from cluster import runs
from cluster.processes import end_run, marked
from cluster.runs import Run
from headrace.failure import Failure
from headrace.folders import runs_folder
from headrace.kept_logs import keep_logs
from headrace.steps import Steps

GRACE_S = 5.0


def sweep(name: str, steps: Steps) -> None:
    """Clears away what a dead run of this name left, and says so. Raises Failure when something stays."""
    run = runs.read(runs_folder(), name)
    if run is not None and not runs.lives(run):
        steps.say(f"✓ cleared away run {name!r}, whose driver (pid {run.driver.pid}) had died: {clear(run)}")


def clear(run: Run) -> str:
    """Ends every process of a run, removes its files and its record; says what it found. Raises Failure."""
    found = marked(run.id)
    if left := end_run(run.id, grace_s=GRACE_S):
        raise Failure(f"run {run.name!r}: can't be ended: pids {' '.join(str(process.pid) for process in left)}")
    had_files = Path(run.folder).exists()
    said = f"{len(found)} processes ended" + (f", logs kept in {keep_logs(run)}" if had_files else "")
    shutil.rmtree(run.folder, ignore_errors=True)
    runs.forget(runs_folder(), run)
    return said
