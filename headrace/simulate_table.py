"""How does a simulation look in a terminal?"""

from rich.console import Console
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

from headrace.simulate import Result
from headrace.simulate_words import COLUMNS, asked, heading, row, variants

WIDEST = 1000
"""Characters of a line."""
SHOWN = 5
"""Decisions of the only run that are printed."""


def show(result: Result, console: Console) -> None:
    """The policies side by side; with one alone, its first decisions too."""
    console.print(Text(heading(result), "bold"))
    console.print(Text(asked(result)))
    console.print()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == COLUMNS[0] else "right")
    for played in result.runs:
        table.add_row(*row(played, result))
    # Figures are never cut: a terminal that is too narrow breaks the lines, a file has them whole.
    whole = console.render(table, console.options.update(max_width=WIDEST))
    console.print(Segments(whole), soft_wrap=True, end="")
    money = f"cost in {result.currency}" if result.price else "no cost without a price"
    console.print(Text(f"met: both targets; mean and most: replicas, starting and draining ones too; {money}", "dim"))
    for line in variants(result):
        console.print(Text(line))
    if len(result.runs) == 1:
        _decisions(result, console)
    for note in result.notes:
        console.print(Text(f"! {note}", "yellow"))


def _decisions(result: Result, console: Console) -> None:
    changes = result.runs[0].digest.changes
    for change in changes[:SHOWN]:
        console.print(Text(f"{change.at_s:,.0f} s: {change.reason}"), soft_wrap=True)
    if len(changes) > SHOWN:
        console.print(Text(f"and {result.runs[0].digest.summary.decisions - SHOWN:,} more: --json has them", "dim"))
