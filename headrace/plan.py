"""What does `headrace plan` do: read a model or a fleet, ask what each needs of each device, show it?"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from headrace import model_source, plan_fleet
from headrace.failure import bad_input
from headrace.plan_asked import Options, check
from headrace.plan_model import planned
from headrace.plan_result import Result
from headrace.plan_variants import variants


def command(options: Options, *, as_json: bool, html: str | None) -> None:
    """Prints the plans, and writes a page where one was asked for. Raises Failure."""
    is_fleet = options.source.endswith(plan_fleet.FILES)
    results = plan_fleet.plans(options) if is_fleet else [plan(options)]
    if html and len(results) > 1:
        names = ", ".join(result.asked.name for result in results)
        raise bad_input(f"--html: a page shows one model: name one with --model ({names})")
    if as_json:
        from headrace import plan_json

        print(plan_json.of_fleet(options.source, results) if is_fleet else plan_json.to_json(results[0]))
    else:
        _show(results, Console(highlight=False))
    if html:
        _write_page(results[0], Path(html).expanduser())


def plan(options: Options) -> Result:
    """Everything that the options ask of one model. Raises Failure."""
    if options.model:
        raise bad_input("--model: names one of a fleet file's models; here the model is the first word")
    check(options)
    asked = model_source.asked("MODEL", options.source)
    folder = Path(options.variants).expanduser() if options.variants else None
    return planned(asked, variants(asked, options.quantization, folder), options)


def _show(results: Sequence[Result], console: Console) -> None:
    from headrace.plan_table import show

    for number, result in enumerate(results):
        if number:
            console.print("\n")
        show(result, console)


def _write_page(result: Result, path: Path) -> None:
    from headrace.pages import write_page
    from headrace.plan_page import page

    written = write_page(page(result), path)
    Console(stderr=True, highlight=False).print(f"page: {written}", markup=False, soft_wrap=True)
