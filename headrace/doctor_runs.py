"""What do earlier runs still hold on this machine?"""

from collections.abc import Iterator

from cluster import runs
from cluster.processes import all_marked
from headrace.finding import Finding, Level
from headrace.folders import runs_folder


def run_findings() -> Iterator[Finding]:
    """Live runs, dead ones that are still recorded, and processes that no record knows."""
    recorded = runs.read_all(runs_folder())
    for run in recorded:
        if runs.lives(run):
            yield Finding(Level.OK, "run", f"{run.name} is live on {run.url}")
        else:
            yield Finding(Level.WARN, "run", f"{run.name} is dead but recorded", f"headrace stop --name {run.name}")
    known = {run.id for run in recorded}
    strays = [process.pid for run_id, processes in all_marked().items() if run_id not in known for process in processes]
    if strays:
        pids = " ".join(str(pid) for pid in strays)
        text = f"{len(strays)} processes of unknown runs"
        yield Finding(
            Level.WARN,
            "processes",
            text,
            f"if no other state folder knows them (HEADRACE_STATE): kill {pids}",
        )
    if not recorded and not strays:
        yield Finding(Level.OK, "runs", "none, and none left behind")
