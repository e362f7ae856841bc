"""Where does Headrace keep what must outlive a command?"""

import os
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


def make_run_folder(run_id: str) -> Path:
    """A folder that only this user can read, with a path short enough for the sockets below it.

    Unix sockets' paths end at 107 bytes and Ray's part of them takes about 65. Raises PermissionError.
    """
    parent = Path(f"/tmp/headrace-{os.getuid()}")
    parent.mkdir(mode=0o700, exist_ok=True)
    if parent.is_symlink() or parent.stat().st_uid != os.getuid():
        raise PermissionError(f"{parent} belongs to another user")
    folder = parent / run_id
    folder.mkdir(mode=0o700)
    return folder
