"""How does a command show what it is doing? A spinner in a terminal, plain lines anywhere else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Update = Callable[[str], None]
"""Tells what is happening within a step."""


class Steps:
    """Steps of one command, each with the seconds it took."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, doing: str, done: str) -> Iterator[Update]:
        """Shows `doing` and elapsed seconds while the block runs, then `done`; not when the block failed."""
        start_s = monotonic()
        shown = self._spin(doing) if self.console.is_terminal else self._write(doing, start_s)
        with shown as update:
            yield update
        self.say(f"✓ {done}  {monotonic() - start_s:.1f} s")

    @contextmanager
    def _spin(self, doing: str) -> Iterator[Update]:
        columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(doing, total=None)
            yield lambda detail: progress.update(task, description=f"{doing}: {detail}")

    @contextmanager
    def _write(self, doing: str, start_s: float) -> Iterator[Update]:
        self.say(f"  {doing} ...")
        last = ""

        def update(detail: str) -> None:
            nonlocal last
            if detail != last:
                self.say(f"  {doing}: {detail}  {monotonic() - start_s:.0f} s")
                last = detail

        yield update
