"""Which artefacts are there, what is known about one, and how do two differ? In the terminal."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from compress.report import FILE, Report, load
from deployments.file_errors import nearest
from headrace.failure import bad_input
from headrace.report_findings import findings, shortened
from headrace.report_numbers import duration, many, measured, number, points, ratio, share, size, times
from headrace.report_words import (
    EXECUTORS,
    Verdict,
    claims,
    headline,
    leading_quality,
    notices,
    speed_subject,
    speed_verdict,
    speeds,
)

COLOURS: dict[Verdict, str] = {"better": "green", "worse": "red", "same": "dim"}
VERDICTS: dict[Verdict, str] = {"better": "better", "worse": "worse", "same": "no difference"}
ABSENT = "-"


def found(folders: Sequence[Path], tell: Callable[[str], None] | None = None) -> list[tuple[Path, Report]]:
    """Artefacts one or two levels below the folders, by name. `tell` hears of each report that can't be read.

    Without `tell`, standard error does. What begins with a dot is being made, or was left half made.
    """
    artefacts = []
    for path in sorted({path for folder in folders for path in _reports(folder)}):
        try:
            artefacts.append((path.parent, load(path.parent)))
        except ValueError as error:
            first, *rest = str(error).splitlines()
            (tell or _complain)(f"{first} (and {len(rest)} more)" if rest else first)
    return sorted(artefacts, key=lambda artefact: (artefact[1].name, artefact[0]))


def list_artefacts(folders: Sequence[Path], console: Console) -> None:
    """Prints one row for each artefact."""
    artefacts = found(folders)
    if not artefacts:
        console.print(Text(f"no artefact in {_named(folders)}: `headrace compress recipe.yaml` makes one"))
        return
    table = _table("artefact", "bytes", "", "perplexity", "prefill", "decode", right=range(1, 6))
    for _, report in artefacts:
        weight = report.size.bytes
        rates = (_rates(report, "prefill"), _rates(report, "decode"))
        ratios = (times(weight / report.size.parent_bytes), _perplexity(report), *rates)
        _add(table, report.name, size(weight), *ratios)
    console.print(table)
    console.print(Text("x: over the parent; speeds by batch size, smallest first; ~: no difference shown", "dim"))
    console.print(Text(f"in {_named(folders)}", "dim"))


def show(what: str, folders: Sequence[Path], console: Console) -> None:
    """Prints what a report says of the artefact of that name or in that folder. Raises Failure."""
    folder, report = _chosen(what, found(folders), folders)
    console.print(Text(f"{report.name}, made from {report.lineage.source} on {report.lineage.made_at[:10]}", "bold"))
    console.print(Text(headline(report)))
    for notice in notices(report):
        console.print(Text(f"! {notice}", "yellow"))
    table = _table("", "what", "parent → artefact, and over the parent")
    for claim in claims(report):
        _add(table, VERDICTS[claim.verdict], claim.subject, claim.change, style=COLOURS[claim.verdict])
    console.print(table)
    for line in (*_gate(report), *_break_even(report), *_steps(report)):
        console.print(Text(line))
    console.print(Text(f"in {folder}", "dim"))


def diff(one: str, other: str, folders: Sequence[Path], console: Console) -> None:
    """Prints the figures of two artefacts side by side, and where their recipes differ. Raises Failure."""
    artefacts = found(folders)
    (_, a), (_, b) = (_chosen(what, artefacts, folders) for what in (one, other))
    for caution in _cautions(a, b):
        console.print(Text(f"! {caution}", "yellow"))
    figures = _table("figure", a.name, b.name)
    mine, theirs = _figures(a), _figures(b)
    for key in {**mine, **theirs}:
        _add(figures, key, mine.get(key, ABSENT), theirs.get(key, ABSENT))
    console.print(figures)
    if not (changes := differing(a.recipe, b.recipe)):
        console.print(Text("the recipes are the same"))
        return
    fields = _table("recipe", a.name, b.name)
    for change in changes:
        _add(fields, *change)
    console.print()
    console.print(fields)


def differing(one: object, other: object) -> list[tuple[str, str, str]]:
    """Paths whose values differ, such as `steps[0].layers`, with both values; what one lacks is `-`."""
    mine, theirs = dict(_leaves(one)), dict(_leaves(other))
    pairs = [(path, mine.get(path, ...), theirs.get(path, ...)) for path in {**mine, **theirs}]
    return [(path, _value(a), _value(b)) for path, a, b in pairs if a != b]


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    match value:
        case dict():
            for key, inside in value.items():
                yield from _leaves(inside, f"{path}.{key}".lstrip("."))
        case [dict(), *_]:
            for index, inside in enumerate(value):
                yield from _leaves(inside, f"{path}[{index}]")
        case _:
            yield path, value


def _reports(folder: Path) -> Iterable[Path]:
    for pattern in (f"*/{FILE}", f"*/*/{FILE}"):
        for path in folder.glob(pattern):
            if not any(part.startswith(".") for part in path.relative_to(folder).parts):
                yield path


def _complain(line: str) -> None:
    print(f"headrace: {line}", file=sys.stderr)


def _named(folders: Sequence[Path]) -> str:
    return ", ".join(map(str, folders))


def _chosen(what: str, artefacts: Sequence[tuple[Path, Report]], folders: Sequence[Path]) -> tuple[Path, Report]:
    named = [artefact for artefact in artefacts if artefact[1].name == what]
    if len(named) == 1:
        return named[0]
    if named:
        places = ", ".join(str(folder) for folder, _ in named)
        raise bad_input(f"{len(named)} artefacts are named {what}: give one's folder ({places})")
    folder = Path(what).expanduser()
    if folder.is_dir():
        return folder, _loaded(folder)
    names = [report.name for _, report in artefacts]
    known = f" (there are: {', '.join(names)})" if names else ""
    raise bad_input(f"{what}: no artefact in {_named(folders)} has this name{nearest(what, names)}{known}")


def _loaded(folder: Path) -> Report:
    try:
        return load(folder)
    except ValueError as error:
        raise bad_input(str(error)) from None


def _table(*titles: str, right: Iterable[int] = ()) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for index, title in enumerate(titles):
        table.add_column(
            Text(title), justify="right" if index in right else "left", no_wrap=index == 0, overflow="fold"
        )
    return table


def _add(table: Table, *cells: str, style: str = "") -> None:
    table.add_row(*(Text(cell) for cell in cells), style=style)  # as Text: brackets in names are no markup


def _perplexity(report: Report) -> str:
    if (quality := leading_quality(report)) is None:
        return ABSENT
    return f"{'' if quality.ratio.excludes(1) else '~'}{ratio(quality.ratio).value}"


def _rates(report: Report, what: str) -> str:
    """Ratios at each batch size; `~` before one whose interval includes 1."""
    mine = [speed for speed in speeds(report) if speed.what == what]
    marks = ["~" if speed_verdict(speed) == "same" else "" for speed in mine]
    return " ".join(f"{mark}{ratio(speed.ratio).value}" for mark, speed in zip(marks, mine, strict=True)) or ABSENT


def _gate(report: Report) -> Iterable[str]:
    gate = report.gate
    yield (
        f"gate: KL {number(gate.kl)} nats per token (at most {number(gate.kl_limit)}), "
        f"same likeliest token {number(100 * gate.top1)} % (at least {number(100 * gate.top1_limit)} %)"
    )


def _break_even(report: Report) -> Iterable[str]:
    for what, tokens in report.break_even_tokens.items():
        yield f"break-even, {what}: {'never' if tokens is None else f'after {many(tokens)} tokens'}"


def _steps(report: Report) -> Iterable[str]:
    for count, done in enumerate(report.steps, start=1):
        values = [f"{key} {shortened(value)}" for key, value in done.step.items() if key != "do"]
        told = "; ".join(f"{key} {value}" for key, value in findings(done.found).items())
        line = f"step {count}: {done.step.get('do')} ({', '.join(values)}), {duration(done.seconds)}"
        yield f"{line}; found: {told}" if told else line


def _cautions(a: Report, b: Report) -> Iterable[str]:
    if a.lineage.parent_hash != b.lineage.parent_hash:
        yield "made from different parents: ratios are each over its own"
    if a.lineage.evaluation_hash != b.lineage.evaluation_hash:
        yield "judged on different text: perplexities can't be compared"
    if a.lineage.machine != b.lineage.machine:
        yield "measured on different machines: speeds can't be compared"


def _figures(report: Report) -> dict[str, str]:
    sizes = report.size
    return {
        "bytes on disk": f"{size(sizes.bytes)}, {times(sizes.bytes / sizes.parent_bytes)}",
        "parameters": many(sizes.parameters),
        "KV cache per token": size(sizes.kv_bytes_per_token),
        **_quality(report),
        **{f"{speed_subject(speed)}, over parent": str(ratio(speed.ratio)) for speed in speeds(report)},
        **{f"{task.name}, against parent": str(points(task.difference)) for task in report.tasks if task.above_chance},
        "gate: KL, nats per token": number(report.gate.kl),
        "seconds of the steps": duration(sum(step.seconds for step in report.steps)),
    }


def _quality(report: Report) -> dict[str, str]:
    figures: dict[str, str] = {}
    for quality in report.quality:
        where = EXECUTORS[quality.executor]
        figures[f"perplexity in {where}"] = str(measured(quality.perplexity))
        figures[f"perplexity in {where}, over parent"] = str(ratio(quality.ratio))
        if quality.kl:
            figures[f"KL in {where}, nats per token"] = str(measured(quality.kl))
        figures[f"same likeliest token in {where}"] = str(share(quality.top1))
    return figures


def _value(value: object) -> str:
    return ABSENT if value is ... else shortened(value)
