"""How does a test run `headrace compress` beside others, and see that nothing of it is left?"""

import os
from pathlib import Path

import psutil

from compress.report import Report
from headrace.fetching import cache_folder


def environment(folder: Path) -> dict[str, str]:
    """The models that are here already, and everything else in a folder of its own."""
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    if not (cache / "models").exists():
        (cache / "models").symlink_to(cache_folder() / "models")
    return os.environ | {"HEADRACE_CACHE": str(cache), "HEADRACE_STATE": str(folder / "state")}


def all_ended(env: dict[str, str]) -> None:
    """Waits until no process of a killed run is left: the keeper ends them."""
    _, alive = psutil.wait_procs(processes(env), timeout=60)
    assert alive == []


def processes(env: dict[str, str]) -> list[psutil.Process]:
    """Those of runs with this environment, but for the test itself."""
    return [process for process in psutil.process_iter() if _is_of(process, env)]


def _is_of(process: psutil.Process, env: dict[str, str]) -> bool:
    try:
        return process.environ().get("HEADRACE_CACHE") == env["HEADRACE_CACHE"] and process.pid != os.getpid()
    except psutil.Error:
        return False


def lasting(report: Report) -> dict[str, object]:
    """What must be the same however often a run was interrupted: everything but seconds."""
    steps = [step.model_dump(exclude={"seconds", "cpu_seconds"}) for step in report.steps]
    lineage = report.lineage.model_dump(exclude={"made_at"})
    quality = [quality.model_dump() for quality in report.quality if quality.executor == "transformers"]
    return {"steps": steps, "lineage": lineage, "quality": quality, "size": report.size.model_dump()}
