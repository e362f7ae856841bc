"""Where do the bytes of files lie, and how are they written and read?

On fsspec: a folder, or S3, GCS and others by their URL. Blocking: on an event loop, call from a thread.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

COPY_BYTES = 1 << 20


class Shelf:
    """Files by name. Raises OSError, and whatever a service's own file system raises."""

    def __init__(self, url: str) -> None:
        """Raises ImportError where the package for this kind of URL is not installed."""
        self._files, self._root = fsspec.url_to_fs(url)
        self._local = isinstance(self._files, LocalFileSystem)
        if self._local:
            folder = Path(self._root)
            for parent in (*reversed(folder.parents), folder):
                parent.mkdir(mode=0o700, exist_ok=True)  # each, or only the last would be ours alone

    def create(self, name: str) -> IO[bytes]:
        """A new file; it is there once `finish` has returned."""
        return self._files.open(self._path(name), "wb")

    def finish(self, file: IO[bytes]) -> None:
        """Returns when the disk, or the service, has it."""
        if self._local:
            file.flush()
            os.fsync(file.fileno())
        file.close()

    def open(self, name: str) -> IO[bytes]:
        """For one who reads from the beginning. Raises FileNotFoundError."""
        return self._files.open(self._path(name), "rb")

    @contextmanager
    def at_hand(self, name: str) -> Iterator[IO[bytes]]:
        """For one who reads here and there: a real file, or a copy on this machine. Raises FileNotFoundError."""
        with self.open(name) as kept:
            if self._local:
                yield kept
                return
            with TemporaryFile() as copy:
                while part := kept.read(COPY_BYTES):
                    copy.write(part)
                copy.seek(0)
                yield copy

    def remove(self, name: str) -> None:
        """Once is enough."""
        with suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def read_at(file: IO[Any], offset: int, size: int) -> bytes:
    """A part of a file at hand. Any thread may ask."""
    return os.pread(file.fileno(), size, offset)
