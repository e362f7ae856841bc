"""What does a fetch say while it works?"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What is being done now."""

    phase: str
    """A few words that stay the same while the phase lasts, such as `smollm2: downloading`."""
    share: float | None = None
    """Part of the phase that is done, 0 to 1; None when it can't be known."""
    detail: str = ""
    """What changes within the phase, such as the loss of a training."""


Progress = Callable[[Step | str], None]
"""Hears of each step; a plain text is a note that the user should still see afterwards."""


def say_nothing(_: Step | str) -> None:
    """The progress of a caller that doesn't want any."""


@contextmanager
def shown_on(console: "Console") -> Iterator[Progress]:
    """A progress that draws on the console: a live bar on a terminal, one line a phase elsewhere."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("", total=None, visible=False, detail="")
        phase, began_s = "", monotonic()

        def finish() -> None:
            if phase:
                console.print(f"{phase} ({monotonic() - began_s:.1f} s)", markup=False, highlight=False)

        def show(step: Step | str) -> None:
            nonlocal phase, began_s
            if isinstance(step, str):
                console.print(step, markup=False, highlight=False)
                return
            if step.phase != phase:
                finish()
                phase, began_s = step.phase, monotonic()
                bars.reset(bar, description=phase, visible=True)
            total = None if step.share is None else 1.0
            bars.update(bar, total=total, completed=step.share or 0.0, detail=step.detail)

        yield show
        finish()
