"""How does what is lent of minutes outlive the process of the ledger? Line by line in a file, before it is lent.

What was written is the kernel's to keep: a process that is killed loses none of it. A ledger that starts on another
machine does not find it.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from deployments.said_once import SaidOnce
from deployments.store_paths import make_private

FULL_LINES = 20_000
"""Beyond those that it began with; then the file is written anew, with what still counts."""

log = logging.getLogger("ray.serve")


class Lent(msgspec.Struct, array_like=True, frozen=True):
    """By one answer of the ledger, or left of several."""

    at_s: float
    owner: str
    amounts: dict[str, float]
    """By name of limit; below 0: given back."""
    router: str = ""
    """To which, or by which."""
    had: dict[str, float] = {}
    """What that has had then, by name of limit."""


class LentMinutes:
    """The file, of one ledger at a time. A disk that is full refuses nobody: that is said, and a next ledger does not
    know what was lent meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._said = path, SaidOnce(log.warning)
        self._file, self._left_lines = -1, 0

    @property
    def full(self) -> bool:
        return self._left_lines <= 0

    def recall(self) -> Iterator[Lent]:
        """What is there, in the order in which it was lent. Raises OSError."""
        with suppress(FileNotFoundError):
            for line in self._path.read_bytes().splitlines():
                # Empty, or cut off by a full disk.
                with suppress(msgspec.DecodeError):
                    yield msgspec.json.decode(line, type=Lent)

    def begin(self, lent: Iterable[Lent]) -> None:
        """Has this and nothing else, if it can be written."""
        lines, new = [_line(one) for one in lent], self._path.with_name(f"{self._path.name}.new")
        self._left_lines = FULL_LINES + len(lines)
        with self._saying():
            make_private(self._path.parent)
            new.write_bytes(b"".join(lines))
            new.rename(self._path)
            self.close()

    def add(self, *lent: Lent) -> None:
        """All of it, or nothing, whoever is killed meanwhile."""
        self._left_lines -= len(lent)
        with self._saying():
            if self._file < 0:
                self._file = os.open(self._path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            os.write(self._file, b"".join(_line(one) for one in lent))

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @contextmanager
    def _saying(self) -> Iterator[None]:
        """A failure is said once."""
        try:
            yield
            self._said.works()
        except OSError as error:
            self._said.fails(f"a next ledger would not know what is lent of minutes: {error}")


def _line(lent: Lent) -> bytes:
    """It begins with its break: the end of one that was cut off is not the beginning of the next."""
    return b"\n" + msgspec.json.encode(lent)
