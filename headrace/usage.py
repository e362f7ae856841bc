"""What does `headrace usage` do: read who used what, and show it as a table or JSON?"""

import json
import time
from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table

from deployments import stored_usage
from deployments.store import Store, StoreError
from deployments.store_paths import store_path
from deployments.stored_usage import AMOUNTS, Usage
from deployments.usage_keeper import FOLDER, take_over_left
from headrace.failure import Failure, bad_input
from headrace.spans import span_s
from headrace.stores import is_there, store_url

BY = ("tenant", "key", "model", "variant", "day", "hour")
FORMAT = 1

Row = dict[str, str | int | float]


def command(*, since: str, by: str, as_json: bool, run: str, store: str | None) -> None:
    """Prints usage, added up. Raises Failure."""
    names = [name.strip() for name in by.split(",")]
    if wrong := [name for name in names if name not in BY]:
        raise bad_input(f"--by: should be some of {', '.join(BY)}, got {wrong[0]!r}")
    rows = added_up(stored(since, run, store), names)
    if as_json:
        print(json.dumps({"format": FORMAT, "usage": rows}, indent=1))
    else:
        _show(rows, names)


def stored(since: str, run: str, store: str | None) -> list[Usage]:
    """By the hour, with what routers that are gone left in their journals. Raises Failure."""
    since_s = time.time() - span_s(since)
    url = store_url(store, run)
    if not is_there(url):
        raise Failure(
            f"nothing is stored of a run {run!r} on this machine: `headrace serve` keeps it; "
            "--store reads the store of a fleet that names its own"
        )
    try:
        there = Store(url)
        try:
            take_over_left(there, store_path(url, FOLDER))
            return stored_usage.since(there, since_s)
        finally:
            there.close()
    except (StoreError, OSError) as error:
        raise Failure(str(error)) from None


def added_up(usage: Sequence[Usage], names: Sequence[str]) -> list[Row]:
    """One row for each combination of these, in their order."""
    sums: dict[tuple[str, ...], Row] = {}
    for one in usage:
        key = tuple(_value(one, name) for name in names)
        row = sums.setdefault(key, {**dict(zip(names, key, strict=True)), **dict.fromkeys(AMOUNTS, 0)})
        for name in AMOUNTS:
            row[name] += getattr(one, name)
    return [sums[key] for key in sorted(sums)]


def _value(usage: Usage, name: str) -> str:
    if name in ("day", "hour"):
        return f"{datetime.fromtimestamp(usage.hour_s):{'%Y-%m-%d' if name == 'day' else '%Y-%m-%d %H:00'}}"
    return getattr(usage, name)


def _show(rows: list[Row], names: Sequence[str]) -> None:
    table = Table(*names, box=None, pad_edge=False)
    for name in AMOUNTS:
        table.add_column(name.replace("_s", "-s").replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(str(row[name]) or "-" for name in names), *(_amount(row[name]) for name in AMOUNTS))
    Console(highlight=False).print(table)


def _amount(value: str | int | float) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
