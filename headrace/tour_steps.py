"""What does each step of a tour do and show? By the very functions of the commands; figures are returned as values."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from autoscaling import StepCosts
from cluster.inventory import Machine
from compress import recipe as recipes
from compress.preflight import preflight
from compress.report import Report, load
from headrace import (
    ask,
    compress,
    plan,
    plan_asked,
    plan_table,
    simulate,
    simulate_asked,
    simulate_table,
    step_file,
    tour_load,
    tour_prompts,
)
from headrace.compress import Job
from headrace.failure import Failure, bad_input
from headrace.local_ray import Live
from headrace.plan_words import best, name, number, replicas, time
from headrace.report_words import headline
from headrace.source_folder import source_folder
from headrace.steps import Steps
from headrace.tour_files import MODEL, TourFolder, recipe, trace
from headrace.tour_prompts import Prompt
from simulation.outcome import Summary

Found = TypeVar("Found")
Figures = dict[str, Any]
SCHEME = "w8a8"
PLAN = plan_asked.Options(
    source=MODEL,
    gpu=("auto", "l4"),
    quantization=(SCHEME,),
    context=2048,
    rate=500.0,
    prompt=64,
    output=48,
    ttft=2.0,
    tpot=0.5,
)
AT_ONCE, MAX_TOKENS = 8, 48
LOOK_EVERY_S = 0.5
LASTS_S, STARTUP_S = 300.0, 60.0
"""For how long load is simulated, and how long a replica takes to start there."""
ALL_OF_IT = {b"x-headrace-min-quality": b"1"}


def planned(console: Console) -> Figures:
    """What the model and its quantized form need, here and on a GPU. Raises Failure."""
    result = plan.plan(PLAN)
    plan_table.show_side_by_side(result, console)
    found, why = best(result.answers)
    if (held := found.replica) and held.sizing:
        told = f"{name(found, result)} is {why}: replicas: {replicas(held.sizing)}; {held.sizing.reason}"
        console.print(Text(told))
    return {
        name(answer, result): {
            "weights_bytes": answer.variant.model.weight_bytes,
            "replicas": answer.replica and answer.replica.sizing and answer.replica.sizing.replicas,
            "token_s": answer.replica and answer.replica.speed.token_s,
            "per_million_tokens": answer.cost and answer.cost.per_million_tokens,
        }
        for answer in result.answers
    }


def compressed(folder: TourFolder, here: Machine, steps: Steps) -> Figures:
    """Makes the artefact, measures it in vLLM and tells its report. Raises Failure."""
    made = job(source_folder(MODEL, steps), folder, here)
    steps.say(compress.foresight(made.recipe, made.foreseen))
    compress.make([made], here, folder.artefacts, steps)
    report = load(folder.artefact)
    return {"headline": headline(report), **_report_figures(report)}


def job(parent: Path, folder: TourFolder, here: Machine) -> Job:
    """The recipe, which is written; by the scheme that the preflight names, where this machine serves not ours.

    Raises Failure.
    """
    wanted = _foreseen(SCHEME, parent, folder, here)
    if wanted.foreseen.problems and (near := wanted.foreseen.nearest):
        wanted = _foreseen(near.scheme, parent, folder, here)
    if problems := wanted.foreseen.problems:
        raise bad_input("\n".join(f"{wanted.recipe.name}: {problem}" for problem in problems))
    return wanted


def _foreseen(scheme: str, parent: Path, folder: TourFolder, here: Machine) -> Job:
    folder.write(folder.recipe, recipe(scheme))
    wanted = recipes.read(folder.recipe)
    return Job(recipe=wanted, parent=parent, foreseen=preflight(wanted, parent, here))


def _report_figures(report: Report) -> Figures:
    engine = next(quality for quality in report.quality if quality.executor == "vllm")
    return {
        "scheme": report.recipe["steps"][-1]["scheme"],
        "bytes_ratio": report.size.bytes / report.size.parent_bytes,
        "perplexity_ratio": engine.ratio.model_dump(),
        "speed_ratio": {speed.what: speed.ratio.model_dump() for speed in report.speed},
    }


def answered(live: Live, steps: Steps) -> dict[str, Prompt]:
    """The answers to three kinds of request, one after the other, once all variants serve. Raises Failure."""
    with steps.step("Waiting for both variants", "Both variants serve"):
        while not _unless_refused(lambda: tour_prompts.all_serve(live.run.url, MODEL)):
            live.check(timeout_s=LOOK_EVERY_S)
    asked: tuple[tuple[str, dict[bytes, bytes]], ...] = (
        ("plainly", {}),
        ("x-headrace-prefer: cost", tour_prompts.COST),
        ("x-headrace-prefer: cost, x-headrace-min-quality: 1", tour_prompts.COST | ALL_OF_IT),
    )
    question, found = "What is a headrace?", {}
    for words, headers in asked:
        prompt = found[words] = _unless_refused(
            lambda headers=headers: tour_prompts.one(live.run.url, MODEL, question, headers, 24, 0.0)
        )
        steps.say(f"  asked {words}: {prompt.answer.variant} answered, {prompt.answer.figures}")
    return found


def prompted(live: Live, folder: TourFolder, alone: Sequence[Prompt], steps: Steps) -> Figures:
    """A batch of prompts, by variant. Its arrivals and lengths are kept as a trace, and what steps cost, by it and by
    those that came alone before. Raises Failure.
    """
    total = 2 * len(tour_prompts.QUESTIONS)
    with _bar("prompts answered", total, steps.console) as tell:
        prompts, seconds = _unless_refused(
            lambda: tour_prompts.batch(live.run.url, MODEL, at_once=AT_ONCE, max_tokens=MAX_TOKENS, tell=tell)
        )
    each = tour_prompts.by_variant(prompts, seconds)
    whole = tour_prompts.figures(prompts, seconds)
    steps.console.print(_prompts_table(each | {"all": whole}))
    why = tour_prompts.reasons(live.run.url)
    told = ", ".join(f"{count} to {variant} ({reason})" for (variant, reason), count in sorted(why.items()))
    steps.say(f"the router's own count, the three before among them: {told}")
    requests = [(one.sent_s, one.answer.prompt_tokens, one.answer.tokens) for one in prompts]
    folder.write(folder.trace, trace(requests))
    return {
        "seconds": seconds,
        "all": asdict(whole),
        "variants": {variant: asdict(figures) for variant, figures in each.items()},
        "why": [{"variant": variant, "why": reason, "requests": count} for (variant, reason), count in why.items()],
        "steps": _measured(alone, prompts, folder, steps),
    }


def _measured(alone: Sequence[Prompt], batch: Sequence[Prompt], folder: TourFolder, steps: Steps) -> Figures:
    """What steps cost, which is written, by the engines' names."""
    found: dict[str, StepCosts] = {}
    for variant in sorted({str(one.answer.variant) for one in (*alone, *batch)}):
        mine, its = ([one for one in some if one.answer.variant == variant] for some in (alone, batch))
        if measured := tour_load.costs(mine, its):
            found[MODEL if variant == MODEL else f"{MODEL}-{variant}"] = measured
            steps.say(
                f"a step of {variant}: {time(measured.step_s)}, {time(measured.sequence_s)} for each answer in it, "
                f"{time(measured.prompt_token_s)} for each token of a prompt"
            )
    folder.write(folder.steps, step_file.to_json(found))
    return {name: asdict(each) for name, each in found.items()}


def simulation(folder: TourFolder) -> simulate_asked.Options:
    """The fleet under twice the load that its model alone can bear, with its variant and without. Raises Failure."""
    options = simulate_asked.Options(
        trace=str(folder.trace),
        fleet=str(folder.fleet),
        steps=str(folder.steps),
        policies=(simulate_asked.OURS, simulate_asked.ALONE),
        tile=LASTS_S,
        startup=STARTUP_S,
    )
    return replace(options, scale=tour_load.scale(options))


def simulated(options: simulate_asked.Options, console: Console) -> Figures:
    """Who is served in time there. Raises Failure."""
    result = simulate.simulated(options, console)
    simulate_table.show(result, console)
    found = {str(played.asked): _run_figures(played.digest.summary, result.span_s) for played in result.runs}
    with_it, without = found[simulate_asked.OURS], found[simulate_asked.ALONE]
    console.print(
        f"In time: {with_it['in_time_per_s']:.2f} requests a second with the variant, "
        f"{without['in_time_per_s']:.2f} without, of {with_it['requests'] / result.span_s:.2f} that came."
    )
    return {"scale": options.scale, "times_by": result.case.speeds.origin, **found}


def _run_figures(summary: Summary, span_s: float) -> Figures:
    return {
        "requests": summary.requests,
        "attainment": summary.attainment,
        "in_time_per_s": summary.attainment * summary.requests / span_s,
        "ttft_s": summary.ttft_s,
        "device_hours": summary.device_hours,
        "answered": {one.name: one.requests for one in summary.served},
    }


def _unless_refused(ask_it: Callable[[], Found]) -> Found:
    try:
        return ask_it()
    except ask.AnswerFailed as error:
        raise Failure(f"a prompt was not answered: {error}") from None


def _prompts_table(rows: dict[str, tour_prompts.Figures]) -> Table:
    table = Table("variant", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("prompts", "tokens", "tokens/s", "TTFT p50", "most", "a token p50"):
        table.add_column(title, justify="right")
    for variant, told in rows.items():
        pace = "-" if told.token_p50_s is None else time(told.token_p50_s)
        figures = (number(told.tokens_per_s), time(told.ttft_p50_s), time(told.ttft_most_s), pace)
        table.add_row(Text(variant), str(told.requests), str(told.tokens), *figures)
    return table


@contextmanager
def _bar(doing: str, total: int, console: Console) -> Iterator[Callable[[int], None]]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda done: progress.update(task, completed=done)
