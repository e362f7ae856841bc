"""What has a run left behind whose driver is gone, and how is it cleared away?"""

import shutil

from cluster import runs
from cluster.processes import end_run, marked
from cluster.runs import Run
from headrace.folders import runs_folder
from headrace.steps import Steps

GRACE_S = 5.0


def sweep(name: str, steps: Steps) -> None:
    """Clears away what a dead run of this name left; says so. The caller holds the name."""
    run = runs.read(runs_folder(), name)
    if run is None or runs.lives(run):
        return
    ended = clear(run)
    steps.say(f"✓ cleared away run {name!r}, whose driver (pid {run.driver.pid}) had died: {ended}")


def clear(run: Run) -> str:
    """Ends every process of a run, removes its files and its record; says what it ended."""
    found = marked(run.id)
    left = end_run(run.id, grace_s=GRACE_S)
    if not left:
        shutil.rmtree(run.folder, ignore_errors=True)
        runs.forget(runs_folder(), run)
    ended = f"{len(found) - len(left)} processes ended"
    return f"{ended}, {len(left)} can't be ended" if left else ended
