"""How does a run stand now? A table of models and replicas, once or live."""

import time

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster.processes import first_gone
from cluster.runs import Run
from headrace.endpoint import live_run
from headrace.observe import Replica, Served, observe
from headrace.serve_rest import of_run

EVERY_S = 1.0
COLUMNS = (
    ("run", "running_requests"),
    ("wait", "waiting_requests"),
    ("KV free", "kv_free_tokens"),
    ("prefill/s", "prefill_tokens_per_s"),
    ("decode/s", "decode_tokens_per_s"),
)
"""Titles and the router's names: requests that run and wait in the engine; the rest in tokens."""


def status(name: str, *, watch: bool) -> None:
    """Prints the table, or keeps it current until Ctrl-C. Raises Failure when there is no such run."""
    run = live_run(name)
    rest = of_run(run)
    console = Console(highlight=False)
    if not watch:
        console.print(_view(run, observe(run, rest)))
    elif console.is_terminal:
        with Live(_view(run, observe(run, rest)), console=console, auto_refresh=False) as live:
            while not first_gone((run.driver,), EVERY_S):
                live.update(_view(run, observe(run, rest)), refresh=True)
    else:
        while not first_gone((run.driver,), EVERY_S):
            console.print(_view(run, observe(run, rest)))


def _view(run: Run, served: dict[str, Served]) -> Group:
    minutes = (time.time() - run.started_at_s) / 60
    state = "ready" if run.ready else "starting"
    head = f"{run.name}: {state} on {run.url}, driver pid {run.driver.pid}, up {minutes:.0f} min"
    counts = [Text(_counts(model, about)) for model, about in served.items()]
    return Group(Text(head), _table(served), *counts)


def _table(served: dict[str, Served]) -> Table:
    table = Table("replica", "state", "verified", box=None, padding=(0, 1, 0, 0))
    for title, _ in COLUMNS:
        table.add_column(title, justify="right")
    for model, about in served.items():
        for replica_id, replica in sorted(about.replicas.items()):
            table.add_row(f"{model}/{replica_id}", *_row(replica))
        if not about.replicas:
            table.add_row(f"{model}: none")
    return table


def _row(replica: Replica) -> tuple[str, ...]:
    load = replica.load
    state = "draining" if load.get("draining") else replica.state
    verified = {None: "", 1.0: "yes", 0.0: "no"}[load.get("verified")]
    return state, verified, *(f"{load[key]:,.0f}" if key in load else "" for _, key in COLUMNS)


def _counts(model: str, about: Served) -> str:
    if not about.counts:
        return f"{model}: the router does not answer yet"
    queued, served = (about.counts.get(key, 0) for key in ("queued_requests", "open_requests"))
    tokens = about.counts.get("output_tokens", 0)
    return f"{model}: {queued:.0f} requests queued, {served:.0f} being answered, {tokens:,.0f} tokens generated"
