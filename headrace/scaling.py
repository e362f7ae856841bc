"""What does `headrace scaling` do: read the decisions that were stored, and show them as a table, JSON or a page?"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from autoscaling import ENGINE_PREFIX, Entry
from deployments.store import Store, StoreError
from headrace.failure import Failure, bad_input
from headrace.spans import span_s
from headrace.stores import is_there, store_url

FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """As they are typed."""

    model: str | None
    since: str
    store: str | None
    run: str


def command(options: Options, *, as_json: bool, plot: str | None) -> None:
    """Prints the decisions, and draws them where it was asked for. Raises Failure."""
    entries = stored(options, now_s=time.time())
    if as_json:
        print(to_json(entries))
    else:
        from headrace.scaling_table import show

        show(entries, Console(highlight=False))
    if plot:
        from headrace.pages import write_page
        from headrace.scaling_page import page

        written = write_page(page(entries), Path(plot).expanduser(), option="--plot")
        Console(stderr=True, highlight=False).print(f"page: {written}", markup=False, soft_wrap=True)


def stored(options: Options, *, now_s: float) -> list[Entry]:
    """What was decided within the time asked for, oldest first. Raises Failure, also when that is nothing."""
    since_s = now_s - span_s(options.since)
    try:
        store = Store(_url(options))
        entries = store.decisions(since_s=since_s)
        store.close()
    except StoreError as error:
        raise Failure(str(error)) from None
    models = {entry["deployment"].removeprefix(ENGINE_PREFIX) for entry in entries}
    if not entries:
        raise Failure(f"nothing was decided in the last {options.since}: --since looks further back")
    if options.model is None:
        return entries
    if options.model not in models:
        raise bad_input(f"no decision of model {options.model!r} in the last {options.since}; of: {_list(models)}")
    return [entry for entry in entries if entry["deployment"] == ENGINE_PREFIX + options.model]


def changes(entries: list[Entry]) -> list[Entry]:
    """Of each model those that changed something, and its newest."""
    newest = {entry["deployment"]: entry for entry in entries}
    before: dict[str, tuple[object, ...]] = {}
    kept = []
    for entry in entries:
        state = tuple(entry[name] for name in ("wanted", "running", "starting", "advice"))
        if state != before.get(entry["deployment"]) or entry is newest[entry["deployment"]]:
            kept.append(entry)
        before[entry["deployment"]] = state
    return kept


def to_json(entries: list[Entry]) -> str:
    """Same input, same bytes."""
    return json.dumps({"format": FORMAT, "decisions": entries}, indent=1)


def _url(options: Options) -> str:
    url = store_url(options.store, options.run)
    if not is_there(url):
        raise Failure(
            f"no decisions of a run {options.run!r} are stored on this machine: `headrace serve` keeps them; "
            "--store reads the store of a fleet that names its own"
        )
    return url


def _list(models: set[str]) -> str:
    return ", ".join(sorted(models))
