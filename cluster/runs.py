"""Which runs are recorded on this machine, and which of them live? A JSON file each, locked by its driver."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.processes import Process, is_alive


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What must be known of a run to reach it, to end it and to clean up after it."""

    name: str
    id: str
    """Value of the mark that its processes carry."""
    driver: Process
    keeper: Process | None = None
    url: str
    """Where its router answers."""
    dashboard_url: str | None = None
    """Where Serve's REST answers, to whoever has the token; None until Ray was started."""
    models: tuple[str, ...]
    folder: str
    """Ray's temporary files, the token, the logs."""
    log: str | None = None
    """Where a detached driver writes."""
    started_at_s: float
    """Seconds since the epoch."""
    ready: bool = False

    @property
    def token(self) -> Path:
        """File that holds the token of its Ray."""
        return Path(self.folder) / "token"


class NameTaken(RuntimeError):
    """A run of this name lives."""


@contextmanager
def claim(folder: Path, name: str) -> Iterator[None]:
    """Holds the name as long as the block runs, or this process lives. Raises NameTaken."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NameTaken(name) from None
        yield


def write(folder: Path, run: Run) -> None:
    """Records a run in one step: a reader sees the old record or the new one."""
    aside = folder / f"{run.name}.json.new"
    aside.write_text(json.dumps(asdict(run), indent=1))
    os.replace(aside, folder / f"{run.name}.json")


def read(folder: Path, name: str) -> Run | None:
    """The record of this name; None where there is none that can be read."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        values = json.loads((folder / f"{name}.json").read_text())
        values["driver"] = Process(**values["driver"])
        values["keeper"] = Process(**values["keeper"]) if values["keeper"] else None
        values["models"] = tuple(values["models"])
        return Run(**values)
    return None


def read_all(folder: Path) -> tuple[Run, ...]:
    """Every record, by name."""
    names = sorted(path.stem for path in folder.glob("*.json"))
    return tuple(run for name in names if (run := read(folder, name)) is not None)


def forget(folder: Path, run: Run) -> None:
    """Removes the record, unless a later run has taken its place."""
    recorded = read(folder, run.name)
    if recorded is not None and recorded.id == run.id:
        (folder / f"{run.name}.json").unlink(missing_ok=True)


def lives(run: Run) -> bool:
    """Whether the run's driver is there."""
    return is_alive(run.driver)
