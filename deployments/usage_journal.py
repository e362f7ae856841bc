"""How does usage outlive the router that counted it? Line by line in a file, before the end of each answer leaves.

A file belongs to one router process, which holds a lock on it as long as it lives. What was written is the kernel's to
keep: a process that is killed loses none of it. A machine that loses its power may lose what was not synced yet, a few
seconds of it.
"""

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deployments.said_once import SaidOnce
from deployments.store_paths import make_private
from deployments.usage_line import Line, encode

SUFFIX = ".usage"
FULL_BYTES = 1 << 22
"""After which a router begins another file, so that one that lives for long keeps no long ones."""


class UsageJournal:
    """The file of this process. Belongs to one event loop, but for `path`."""

    def __init__(self, folder: Path, log: Callable[[str], None]) -> None:
        """Raises OSError."""
        self._said = SaidOnce(log)
        make_private(folder)
        self.path = folder / f"{secrets.token_hex(8)}{SUFFIX}"
        # Locked before it has a name by which others look for files that nobody holds.
        unnamed = self.path.with_suffix(".new")
        self._file = os.open(unnamed, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unnamed.rename(self.path)
        self.size_bytes = 0

    @property
    def full(self) -> bool:
        return self.size_bytes >= FULL_BYTES

    def add(self, line: Line) -> None:
        """Appends a line. A file that can't be written stops no answer: that is said once."""
        try:
            self.size_bytes += os.write(self._file, encode(line) + b"\n")
            self._said.works()
        except OSError as error:
            self._said.fails(f"usage is lost, {self.path} can't be written: {error.strerror or error}")

    def sync(self) -> None:
        """Returns when the disk has it. Any thread may ask. Raises OSError."""
        os.fsync(self._file)

    def close(self) -> None:
        """Leaves the file to whoever wants it."""
        os.close(self._file)


@contextmanager
def left_behind(path: Path) -> Iterator[bool]:
    """Whether the file's process is gone; if so, nobody else takes the file meanwhile."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _locked(file) and os.fstat(file).st_nlink > 0  # who had the lock before may have removed it
    finally:
        os.close(file)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
