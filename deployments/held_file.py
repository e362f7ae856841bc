"""Is the process gone that writes a file? It holds a lock on it as long as it lives.

What was written is the kernel's to keep: a process that is killed loses none of it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def create_held(path: Path, content: bytes = b"") -> int:
    """A file of this process, to append to, in the place of its former one. Raises OSError."""
    # Locked and whole before it has a name by which others look for files that nobody holds.
    unnamed = path.with_suffix(".new")
    unnamed.unlink(missing_ok=True)
    file = os.open(unnamed, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with os.fdopen(file, "wb", closefd=False) as all_of_it:
            all_of_it.write(content)
        unnamed.rename(path)
    except OSError:
        os.close(file)
        raise
    return file


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
