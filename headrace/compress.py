"""What does `headrace compress` do with recipes: look ahead, carry out, report?"""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cluster.inventory import Machine, machine
from compress.preflight import Preflight, preflight
from compress.recipe import Recipe
from deployments.file_errors import FileError
from headrace import recipes
from headrace.failure import Failure, bad_input
from headrace.fetching import cache_folder
from headrace.folders import artefacts_folder
from headrace.report_files import write_page
from headrace.report_numbers import size
from headrace.report_words import headline
from headrace.source_folder import source_folder
from headrace.steps import Steps
from headrace.task_ray import task_ray

LOOK_EVERY_S = 0.3


@dataclass(frozen=True, kw_only=True)
class Job:
    """One recipe, ready to be carried out."""

    recipe: Recipe
    parent: Path
    foreseen: Preflight


def command(what: list[str], *, goal: str | None, out: str | None, only_look: bool) -> None:
    """One of list, show and diff, or compressing. Raises Failure."""
    from headrace import artefacts

    console, folders = Console(highlight=False), [_out(out)]
    match what:
        case ["list"]:
            artefacts.list_artefacts(folders, console)
        case ["show", name]:
            artefacts.show(name, folders, console)
        case ["diff", one, other]:
            artefacts.diff(one, other, folders, console)
        case ["show" | "diff", *_]:
            raise bad_input("write `compress show NAME` or `compress diff NAME NAME`; `compress list` has the names")
        case _:
            compress(what, goal=goal, out=_out(out), only_look=only_look)


def compress(what: list[str], *, goal: str | None, out: Path, only_look: bool) -> None:
    """Makes the artefacts that the command line means. Raises Failure."""
    recipes.check(what, goal)
    steps, here = Steps(Console(highlight=False)), machine()
    jobs = _looked_ahead(what, goal, here, steps)
    if only_look:
        return
    make(jobs, here, out, steps)


def make(jobs: list[Job], here: Machine, out: Path, steps: Steps) -> None:
    """Carries all of them out, side by side as far as there is room. Raises Failure."""
    try:
        with task_ray(here, steps):
            failed = _carry_out(jobs, here, out, steps)
    except KeyboardInterrupt:
        steps.say("! interrupted: what is finished is kept, the same command goes on from there")
        raise
    if failed:
        raise Failure("\n".join(failed))


def _out(given: str | None) -> Path:
    return Path(given).expanduser().absolute() if given else artefacts_folder()


def _looked_ahead(what: list[str], goal: str | None, here: Machine, steps: Steps) -> list[Job]:
    """Every recipe with its preflight, which is shown. Raises Failure when one of them can't work."""
    jobs, problems = [], []
    parents = {what[0]: source_folder(what[0], steps)} if goal else {}
    for recipe in recipes.meant(what, goal, _layers(parents.get(what[0]))):
        if any(recipe.name == job.recipe.name for job in jobs):
            problems.append(f"{recipe.name}: two recipes have this name")
        if recipe.source not in parents:
            parents[recipe.source] = source_folder(recipe.source, steps)
        parent = parents[recipe.source]
        try:
            foreseen = preflight(recipe, parent, here)
        except FileError as error:
            raise bad_input(f"{recipe.name}: {error}") from None
        problems += [f"{recipe.name}: {problem}" for problem in foreseen.problems]
        jobs.append(Job(recipe=recipe, parent=parent, foreseen=foreseen))
        steps.say(foresight(recipe, foreseen))
    if problems:
        raise bad_input("\n".join(problems))
    return jobs


def _layers(parent: Path | None) -> int | None:
    from compress.shape import read

    return None if parent is None else read(parent).layers


def foresight(recipe: Recipe, foreseen: Preflight) -> str:
    """What would come out, and what it takes."""
    before, after = foreseen.parent, foreseen.result
    least, most = foreseen.seconds / foreseen.seconds_within, foreseen.seconds * foreseen.seconds_within
    return (
        f"{recipe.name}: {size(before.bytes)} -> {size(after.bytes)}; key-value cache {before.kv_bytes_per_token:,} -> "
        f"{after.kv_bytes_per_token:,} B a token; {before.flops_per_token / 1e9:.2f} -> "
        f"{after.flops_per_token / 1e9:.2f} GFLOP a token; splits over {_or(foreseen.tensor_parallel_fits)} devices; "
        f"steps take {least:.0f} to {most:.0f} s and {size(_memory_bytes(foreseen))} of memory"
    )


def _or(counts: tuple[int, ...]) -> str:
    return " or ".join(map(str, counts))


def _memory_bytes(foreseen: Preflight) -> int:
    return max((effort.memory_bytes for effort in foreseen.efforts), default=0)


def _carry_out(jobs: list[Job], here: Machine, out: Path, steps: Steps) -> list[str]:
    """Runs all jobs side by side, as far as there is room; lines about those that failed."""
    done: queue.Queue[tuple[Job, Path | Exception]] = queue.Queue()
    # Here, since two threads that import it at once get half of it.
    from transformers import AutoTokenizer  # noqa: F401

    store = cache_folder() / "compress"
    store.mkdir(parents=True, exist_ok=True)
    failed = []
    for job in jobs:
        threading.Thread(target=_run, args=(job, here, store, out, done), daemon=True).start()
    with _bars(jobs, store, steps) as look:
        for _ in jobs:
            job, result = _next(done, look)
            if isinstance(result, Exception):
                failed.append(f"{job.recipe.name}: {_reason(result)}")
            else:
                steps.say(_finished(result))
    return failed


def _run(job: Job, here: Machine, store: Path, out: Path, done: "queue.Queue[tuple[Job, Path | Exception]]") -> None:
    from compress import flow
    from compress.on_ray import as_tasks
    from compress.spread_on_ray import ON_RAY

    try:
        folder = flow.run(
            job.recipe,
            job.parent,
            machine=here,
            store=store,
            out=out,
            call=as_tasks(_progress(store, job)),
            shared=ON_RAY,
            step_bytes=_memory_bytes(job.foreseen),
        )
        done.put((job, folder))
    except Exception as error:
        done.put((job, error))


def _next(done: "queue.Queue[tuple[Job, Path | Exception]]", look: Any) -> tuple[Job, Path | Exception]:
    while True:
        try:
            return done.get(timeout=LOOK_EVERY_S)
        except queue.Empty:
            look()


def _progress(store: Path, job: Job) -> Path:
    return store / f".progress-{job.recipe.name}.json"


@contextmanager
def _bars(jobs: list[Job], store: Path, steps: Steps) -> Iterator[Any]:
    """A function that draws how far each job is: bars on a terminal, a line a stage elsewhere."""
    from compress.on_ray import told

    columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn()
    terminal = steps.console.is_terminal
    with Progress(*columns, console=steps.console, transient=True, disable=not terminal) as progress:
        bars: dict[str, TaskID] = {job.recipe.name: progress.add_task(job.recipe.name, total=None) for job in jobs}
        last: dict[str, tuple[str, int]] = {}

        def look() -> None:
            for job in jobs:
                name = job.recipe.name
                doing, share = told(_progress(store, job))
                total = None if share is None else 1.0
                progress.update(bars[name], description=f"{name}: {doing}", total=total, completed=share or 0.0)
                if not terminal and last.get(name) != (news := _news(doing, share)):
                    last[name] = news
                    steps.say(f"  {name}: {doing} ...")

        try:
            yield look
        finally:
            for job in jobs:
                _progress(store, job).unlink(missing_ok=True)


def _news(doing: str, share: float | None) -> tuple[str, int]:
    """What must change before a line is worth it: what is done, or a tenth of one that has news of its own."""
    what, _, detail = doing.partition(", ")
    return what, int(10 * (share or 0.0)) if detail else 0


def _finished(folder: Path) -> str:
    from compress.report import load

    page = write_page(folder)
    return f"✓ {folder.name}: {headline(load(folder))}\n  serve it: headrace serve {folder}\n  report: {page}"


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    known = type(error).__module__.partition(".")[0] in ("compress", "deployments")
    return text if known else f"{type(error).__name__}: {text}"
