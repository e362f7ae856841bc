"""How do the outcomes of a batch become its output file and its error file? Line by line, in the input file's order."""

from collections.abc import Iterable
from contextlib import suppress
from heapq import merge
from operator import attrgetter
from time import time
from typing import IO

from deployments.batches import stored_batches
from deployments.batches.batch import Batch, Outcome
from deployments.files import stored_files
from deployments.files.routes import new_name
from deployments.files.shelf import Shelf
from deployments.files.stored_files import File
from deployments.files.wire import OUTPUT
from deployments.store import Store, StoreError


class _Growing:
    """A file that is there once something is written to it."""

    def __init__(self, store: Store, shelf: Shelf, batch: Batch, what: str) -> None:
        self._store, self._shelf, self._batch, self._what = store, shelf, batch, what
        self._name, self._size_bytes = new_name(), 0
        self._opened: IO[bytes] | None = None

    def write(self, line: bytes) -> None:
        if self._opened is None:
            stored_files.coming(self._store, self._name, self._batch.tenant, time())
            self._opened = self._shelf.create(self._name)
        self._opened.write(line)
        self._size_bytes += len(line)

    def finish(self) -> File | None:
        """None: nothing was written."""
        if self._opened is None:
            return None
        self._shelf.finish(self._opened)
        now_s, kept_s = time(), self._batch.files_kept_s
        return File(
            id=self._name,
            tenant=self._batch.tenant,
            filename=f"{self._batch.id}_{self._what}.jsonl",
            purpose=OUTPUT,
            size_bytes=self._size_bytes,
            created_s=now_s,
            expires_s=None if kept_s is None else now_s + kept_s,
        )

    def give_up(self) -> None:
        if self._opened is not None:
            self._opened.close()
            with suppress(StoreError):  # its age tells, too
                stored_files.give_up(self._store, self._name)


def write(store: Store, shelf: Shelf, batch: Batch, left: Iterable[Outcome]) -> tuple[File | None, File | None]:
    """Both files, which are nobody's yet. `left`: what is told of lines that nothing came of, in order.

    Raises StoreError, and what the shelf raises.
    """
    output, errors = (_Growing(store, shelf, batch, what) for what in ("output", "error"))
    try:
        for outcome in merge(stored_batches.outcomes(store, batch.id), left, key=attrgetter("line")):
            (output if outcome.answered else errors).write(outcome.body)
        return output.finish(), errors.finish()
    except BaseException:
        output.give_up()
        errors.give_up()
        raise
