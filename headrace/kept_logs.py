"""Which logs stay when a run has failed?"""

import shutil
from contextlib import suppress
from pathlib import Path

from cluster.runs import Run
from headrace.folders import logs_folder

KEPT = 5
"""Runs whose logs are kept: the latest."""


def keep_logs(run: Run) -> Path:
    """Copies the logs of a failed run to where they stay, and says where; those of the oldest go."""
    kept = logs_folder() / f"{run.name}-{run.id}"
    kept.mkdir(parents=True, exist_ok=True)
    folder = Path(run.folder)
    with suppress(OSError):
        shutil.copy(folder / "ray.log", kept)
    for logs in folder.glob("ray/session_2*/logs"):
        shutil.copytree(logs, kept, dirs_exist_ok=True, ignore_dangling_symlinks=True)
    folders = (path for path in logs_folder().iterdir() if path.is_dir())
    for old in sorted(folders, key=lambda path: path.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return kept
