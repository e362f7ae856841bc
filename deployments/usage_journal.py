"""How does usage outlive the router that counted it? Line by line in a file, before the end of each answer leaves.

A file belongs to one router process, and says whether that is gone (held_file.py). A machine that loses its power may
lose what was not synced yet, a few seconds of it.
"""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from deployments.held_file import create_held
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
        self._file = create_held(self.path)
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
