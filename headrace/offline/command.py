"""What does `headrace batch run` do: what is missing of a job, who does it, how far is it?"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from deployments.fleet import Fleet
from headrace.failure import INTERRUPTED, Failure, bad_input
from headrace.interrupts import signals_interrupt
from headrace.offline import parts
from headrace.offline.engines import Done, Work, by_engines
from headrace.offline.place import Place, cluster, here
from headrace.offline.rows import Asks, asks
from headrace.offline.table import Partition, Table, cut, files
from headrace.serve import fleet_for
from headrace.steps import Steps

SHOWN = 5
"""Rows without an answer that are told one by one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What the command line says."""

    source: str
    out: str
    model: str
    engine: list[str]
    prompt: str | None = None
    messages: str | None = None
    chat: bool = False
    max_tokens: int = 256
    temperature: float | None = None
    sampling: str | None = None
    partition_rows: int = 1000
    engines: int | None = None
    cluster: bool = False
    prefix: str = ""


Spread = Callable[[Sequence[Partition], Work], Iterator[Done]]
At = Callable[[Fleet, int | None, Steps], AbstractContextManager[Place]]


def run(wish: Wish, *, by: Spread = by_engines, at: At = here) -> None:
    """Answers what is missing. Raises Failure, also where rows have no answer."""
    steps, out = Steps(Console(highlight=False)), Path(wish.out).expanduser().absolute()
    tables, partitions, ask = _read(wish)
    fleet = fleet_for(wish.model, wish.engine, port=None, host=None)
    if len(fleet.models) != 1:
        raise bad_input(f"--model: should be one model, {wish.model} has {len(fleet.models)}")
    model = fleet.models[0].source
    parts.claim(out, tables=tables, partition_rows=wish.partition_rows, model=model, ask=ask, prefix=wish.prefix)
    with _alone(out):
        written, missing = [], []
        for one in partitions:
            (written if parts.path(out, one).exists() else missing).append(one)
        steps.say(_begin(partitions, missing, out))
        done: list[Done] = []
        if missing:
            place = (cluster if wish.cluster else at)(fleet, wish.engines, steps)
            made = partial(Work, asks=ask, out=str(out), prefix=wish.prefix)
            done = _carry_out(missing, place, made, steps, by)
        errors = [error for one in written for error in parts.errors(out, one, wish.prefix)]
        errors += [error for one in done for error in one.errors]
    rows = sum(one.rows for one in partitions)
    if errors:
        raise Failure(_lacking(errors, rows, wish.prefix))
    steps.say(f"✓ all {rows:,} rows have answers: {out}")


def _read(wish: Wish) -> tuple[list[Table], list[Partition], Asks]:
    tables: list[Table] = []
    partitions: list[Partition] = []
    for file in files(wish.source):
        table, more = cut(file, wish.partition_rows, len(partitions))
        tables.append(table)
        partitions += more
    if not partitions:
        raise bad_input(f"{wish.source}: there are no rows")
    columns = tables[0].columns
    for table in tables[1:]:
        if table.kind != "jsonl" and table.columns != columns:
            raise bad_input(f"{table.path}: its columns differ from those of {tables[0].path}")
    if taken := set(columns) & set(parts.names(wish.prefix)):
        raise bad_input(f"there is a column {sorted(taken)[0]!r} already: name those that are added with --prefix")
    ask = asks(columns, prompt=wish.prompt, messages=wish.messages, chat=wish.chat, sampling=_sampling(wish))
    return tables, partitions, ask


def _sampling(wish: Wish) -> dict[str, Any]:
    try:
        more = json.loads(wish.sampling) if wish.sampling is not None else {}
    except ValueError as error:
        raise bad_input(f"--sampling: no JSON: {error}") from None
    if not isinstance(more, dict):
        raise bad_input(f"--sampling: should be an object, such as '{{\"top_p\": 0.9}}', got {wish.sampling}")
    told = {"max_tokens": wish.max_tokens, "temperature": wish.temperature}
    return {**{name: value for name, value in told.items() if value is not None}, **more}


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Two that write one folder would do the same twice. Raises Failure."""
    try:
        with FileLock(out / ".lock", timeout=0):
            try:
                yield
            finally:
                parts.clear(out)
    except Timeout:
        raise Failure(f"another `headrace batch run` writes {out}") from None


def _begin(partitions: Sequence[Partition], missing: Sequence[Partition], out: Path) -> str:
    rows, lacking = (sum(one.rows for one in these) for these in (partitions, missing))
    if len(missing) == len(partitions):
        return f"{rows:,} rows in {len(partitions):,} partitions"
    left_out = f"{len(missing):,} ({lacking:,} rows) are not in {out}"
    return f"{rows:,} rows in {len(partitions):,} partitions, of which {left_out}"


def _carry_out(
    missing: Sequence[Partition],
    place: AbstractContextManager[Place],
    made: Callable[..., Work],
    steps: Steps,
    by: Spread,
) -> list[Done]:
    """Every partition, with how far it is. Raises Failure."""
    done: list[Done] = []
    began_s = time.monotonic()
    try:
        with signals_interrupt(), place as there, _bar(missing, steps) as tell:
            for one in by(missing, made(place=there)):
                if one.failed:
                    raise Failure(f"{one.failed}\n{_how_to_go_on(missing, done)}")
                done.append(one)
                tell(done)
    except KeyboardInterrupt:
        raise Failure(f"interrupted: {_how_to_go_on(missing, done)}", exit_code=INTERRUPTED) from None
    tokens_in, tokens_out = sum(one.prompt_tokens for one in done), sum(one.output_tokens for one in done)
    steps.say(f"  {tokens_in:,} tokens of prompts, {tokens_out:,} of answers  {time.monotonic() - began_s:.0f} s")
    return done


def _how_to_go_on(missing: Sequence[Partition], done: Sequence[Done]) -> str:
    rows = sum(one.rows for one in missing) - sum(one.rows for one in done)
    return f"what is written stays; the same command does the {rows:,} rows that are left"


@contextmanager
def _bar(missing: Sequence[Partition], steps: Steps) -> Iterator[Callable[[Sequence[Done]], None]]:
    """A function that shows what is done, and the time that is left: a bar on a terminal, a line a tenth elsewhere."""
    total = sum(one.rows for one in missing)
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn()
    terminal = steps.console.is_terminal
    with Progress(*columns, console=steps.console, transient=True, disable=not terminal) as progress:
        task = progress.add_task("starting engines", total=total)
        tenths = 0

        def tell(done: Sequence[Done]) -> None:
            nonlocal tenths
            rows = sum(one.rows for one in done)
            said = f"{rows:,} of {total:,} rows, {left(done, total, time.time())}"
            progress.update(task, description=said, completed=rows)
            if not terminal and (now := 10 * rows // total) > tenths:
                tenths = now
                steps.say(f"  {said}")

        if not terminal:
            steps.say("  starting engines ...")
        yield tell


def left(done: Sequence[Done], total: int, now_s: float) -> str:
    """Tokens made in a second so far, and how long the rest will take at this pace."""
    took_s = max(1e-3, now_s - min(one.began_s for one in done))
    rows, tokens = sum(one.rows for one in done), sum(one.output_tokens for one in done)
    rest_s = took_s * (total - rows) / rows
    rest = (
        f"{rest_s:.0f} s" if rest_s < 120 else f"{rest_s / 60:.0f} min" if rest_s < 7200 else f"{rest_s / 3600:.1f} h"
    )
    return f"{tokens / took_s:,.0f} tokens/s, {rest} left"


def _lacking(errors: Sequence[str], rows: int, prefix: str) -> str:
    more = f"\nand {len(errors) - SHOWN:,} more" if len(errors) > SHOWN else ""
    return (
        f"{len(errors):,} of {rows:,} rows have no answer; the column `{prefix}error` says why:\n"
        + "\n".join(errors[:SHOWN])
        + more
    )
