"""How do scale decisions look in a terminal?"""

from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from autoscaling import ENGINE_PREFIX, Entry
from headrace.scaling import changes

ADVICE = "advice: Ray Serve's own law scales these; wanted is what would have been done"


def show(entries: list[Entry], console: Console) -> None:
    """Each change with its reason, and where things stand now."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("time", no_wrap=True)
    table.add_column("model", no_wrap=True)
    for title in ("wanted", "running", "starting"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold", min_width=30)
    shown = changes(entries)
    for entry in shown:
        table.add_row(*_row(entry))
    console.print(table)
    quiet = len(entries) - len(shown)
    if quiet:
        console.print(Text(f"{quiet} more that changed nothing: --json has them", "dim"))
    if any(entry["advice"] for entry in shown):
        console.print(Text(ADVICE, "dim"))


def when(at_s: float) -> str:
    """In this machine's time."""
    return datetime.fromtimestamp(at_s).strftime("%m-%d %H:%M:%S")


def _row(entry: Entry) -> tuple[str, ...]:
    model = entry["deployment"].removeprefix(ENGINE_PREFIX)
    wanted = f"{entry['wanted']} (advice)" if entry["advice"] else str(entry["wanted"])
    return when(entry["at_s"]), model, wanted, str(entry["running"]), str(entry["starting"]), entry["reason"]
