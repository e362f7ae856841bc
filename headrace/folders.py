"""Where does Headrace keep what must outlive a command?"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs


def state_folder() -> Path:
    """Run records and logs: $HEADRACE_STATE, or where this system keeps such things."""
    given = os.environ.get("HEADRACE_STATE")
    return Path(given).absolute() if given else platformdirs.user_state_path("headrace")


def runs_folder() -> Path:
    """One record for each run."""
    return state_folder() / "runs"


def logs_folder() -> Path:
    """Logs of detached and of failed runs."""
    return state_folder() / "logs"


def store_file(run: str) -> Path:
    """What outlives a run of this name: the store of a fleet that names none."""
    return state_folder() / "stores" / f"{run}.sqlite"


def artefacts_folder() -> Path:
    """Compressed checkpoints: $HEADRACE_ARTEFACTS, or where this system keeps a user's data."""
    given = os.environ.get("HEADRACE_ARTEFACTS")
    return Path(given).absolute() if given else platformdirs.user_data_path("headrace", appauthor=False) / "artefacts"


def run_folder(run_id: str) -> Path:
    """Where a run keeps Ray's temporary files, its token and its logs: short enough for the sockets below it.

    Unix sockets' paths end at 107 bytes and Ray's part of them takes about 65.
    """
    return Path(f"/tmp/headrace-{os.getuid()}") / run_id


@contextmanager
def made(folder: Path) -> Iterator[Path]:
    """A folder that only this user can read, as long as the block runs. Raises PermissionError."""
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    if folder.parent.is_symlink() or folder.parent.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder.parent} belongs to another user")
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
