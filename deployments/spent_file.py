"""How much of what a router was lent of budgets did it spend, if it is killed? A file says so, line by line.

It is written before the first is borrowed, and before each answer ends, and by its lock says whether the router lives
(held_file.py). Whoever finds that of one that is gone tells the ledger, which takes the rest back.
"""

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from errno import ENOSPC
from functools import partial
from pathlib import Path

import msgspec

import routing
from deployments.held_file import create_held, left_behind
from deployments.looks import go_on_looking
from deployments.said_once import SaidOnce
from deployments.store_paths import make_private

FOLDER = "spent"
"""Where the files lie, of what belongs to their store on this machine."""
SUFFIX = ".spent"
FULL_LINES = 20_000
"""After which the file is written anew, with the last line of each account."""
EVERY_S = 2.0
"""Seconds between two looks for those that are gone."""
PATIENCE_S = 2.0
"""With the ledger, at the end."""

End = Callable[[str, Mapping[str, routing.Spent]], Awaitable[None]]
"""Told of a router that is gone, and what it spent, by owner."""


class Line(msgspec.Struct, array_like=True, frozen=True):
    """What one account has spent in all, of what it has had."""

    at_s: float
    owner: str
    amounts: dict[str, float]
    """By name of limit."""


class SpentFile:
    """Of this process. A disk that is full refuses nobody: that is said."""

    def __init__(self, folder: Path, log: Callable[[str], None]) -> None:
        """Raises OSError."""
        self._folder, self._log, self._said = folder, log, SaidOnce(log)
        make_private(folder)
        self.router = secrets.token_hex(8)
        """As the ledger knows it."""
        self._path = folder / f"{self.router}{SUFFIX}"
        self._last: dict[str, Line] = {}
        self._file, self._lines = create_held(self._path), 0
        self._synced_lines = 0

    def add(self, owner: str, spent: routing.Spent) -> None:
        """Adds a line, unless the same was said in that day."""
        line, last = Line(spent.at_s, owner, dict(spent.amounts)), self._last.get(owner)
        if last and last.amounts == line.amounts and routing.counts(routing.Period.DAY, last.at_s, line.at_s):
            return
        self._last[owner] = line
        self._try(partial(self._append, line) if self._lines < FULL_LINES else self._begin_anew)

    async def go_on(self, end: End) -> None:
        """Syncs the file, and tells of routers that are gone, until it is cancelled."""
        await go_on_looking(partial(self._look, end), EVERY_S, self._failed, self._log)

    async def close(self, end: End) -> None:
        """Tells of this one too, or leaves its file to the next router."""
        os.close(self._file)
        try:
            await asyncio.wait_for(end_left(self._folder, end), PATIENCE_S)
        except Exception as error:
            self._log(self._failed(error))

    async def _look(self, end: End) -> None:
        if self._lines >= FULL_LINES:
            self._try(self._begin_anew)
        if self._lines != self._synced_lines:
            self._synced_lines = self._lines
            await asyncio.to_thread(_sync, os.dup(self._file))
        await end_left(self._folder, end)

    def _failed(self, error: Exception) -> str:
        return f"what routers that are gone did not spend waits in {self._folder}: {type(error).__name__}: {error}"

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
            self._said.works()
        except OSError as error:
            self._lines = FULL_LINES  # so that all is written anew as soon as that can be
            self._said.fails(f"budgets may be exceeded if this router is killed: {error}")

    def _append(self, line: Line) -> None:
        content = _encoded(line)
        if os.write(self._file, content) < len(content):
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        self._lines += 1

    def _begin_anew(self) -> None:
        new = create_held(self._path, b"".join(_encoded(line) for line in self._last.values()))
        os.close(self._file)
        self._file, self._lines = new, 0


async def end_left(folder: Path, end: End) -> None:
    """Tells of each router that is gone, and removes its file then. Raises OSError, and what `end` raises."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with left_behind(path) as gone:
            if gone:
                if spent := _last_lines(path):  # who has none has borrowed nothing
                    await end(path.stem, spent)
                path.unlink()


def _sync(file: int) -> None:
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _last_lines(path: Path) -> dict[str, routing.Spent]:
    last = {}
    for text in path.read_bytes().splitlines():
        # Empty, or cut off by a full disk.
        with suppress(msgspec.DecodeError):
            line = msgspec.json.decode(text, type=Line)
            last[line.owner] = routing.Spent(line.at_s, line.amounts)
    return last


def _encoded(line: Line) -> bytes:
    """It begins with its break: the end of one that was cut off is not the beginning of the next."""
    return b"\n" + msgspec.json.encode(line)
