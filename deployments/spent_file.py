"""How much of what a router was lent of budgets did it spend, if it is killed? A file says so, line by line.

It is written before the first is borrowed, and before each answer ends, and by its lock says whether the router lives
(held_file.py). Whoever finds that of one that is gone tells the ledger, which takes the rest back.
"""

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

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

End = Callable[[str, Mapping[str, Mapping[str, float]]], Awaitable[None]]
"""Told of a router that is gone, and what it spent, by owner and name of limit."""


class Spent(msgspec.Struct, array_like=True, frozen=True):
    """By one account in all, of what it has had."""

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
        self._last: dict[str, dict[str, float]] = {}
        self._file, self._lines = create_held(self._path), 0

    def add(self, owner: str, amounts: dict[str, float]) -> None:
        """It has spent so much, if that is news."""
        if amounts == self._last.get(owner, {}):
            return
        self._last[owner] = amounts
        try:
            if self._lines < FULL_LINES:
                os.write(self._file, _line(owner, amounts))
                self._lines += 1
            else:
                self._begin_anew()
            self._said.works()
        except OSError as error:
            self._said.fails(f"budgets may be exceeded if this router is killed: {error}")

    async def go_on(self, end: End) -> None:
        """Tells of those that are gone until it is cancelled."""
        await go_on_looking(partial(end_left, self._folder, end), EVERY_S, self._failed, self._log)

    async def close(self, end: End) -> None:
        """Tells of this one too, or leaves its file to the next router."""
        os.close(self._file)
        try:
            await asyncio.wait_for(end_left(self._folder, end), PATIENCE_S)
        except Exception as error:
            self._log(self._failed(error))

    def _failed(self, error: Exception) -> str:
        return f"what routers that are gone did not spend waits in {self._folder}: {type(error).__name__}: {error}"

    def _begin_anew(self) -> None:
        new = create_held(self._path, b"".join(_line(owner, amounts) for owner, amounts in self._last.items()))
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


def _last_lines(path: Path) -> dict[str, dict[str, float]]:
    last = {}
    for line in path.read_bytes().splitlines():
        # Empty, or cut off by a full disk.
        with suppress(msgspec.DecodeError):
            one = msgspec.json.decode(line, type=Spent)
            last[one.owner] = one.amounts
    return last


def _line(owner: str, amounts: dict[str, float]) -> bytes:
    """It begins with its break: the end of one that was cut off is not the beginning of the next."""
    return b"\n" + msgspec.json.encode(Spent(owner, amounts))
