"""How does a person read an artefact's report? As one HTML file that asks nothing of any other."""

import json
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from compress.report import Report, Speed
from headrace import report_numbers, report_plots, report_words
from headrace.pareto import candidates, fronts, unlike
from headrace.report_fronts import front as drawn_front

TEMPLATE = "report.html.j2"
CURVES = {"recovery_losses": "loss, nats per token"}
"""What lists in a step's findings are called where they are drawn; others go by their own names."""
NO_BREAK = "\u00a0"
DRAWN = ("block_influence", "dropped")
READINGS = {
    ("tokens/s", "better"): "faster",
    ("tokens/s", "worse"): "slower",
    ("s", "better"): "sooner",
    ("s", "worse"): "later",
}


def page(report: Report, others: Sequence[Report] = ()) -> str:
    """The report as HTML, with the others on its Pareto fronts where they can be compared. Same input, same bytes."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for write in ("number", "measured", "share", "points", "ratio", "times", "size", "duration", "many"):
        environment.filters[write] = getattr(report_numbers, write)
    environment.filters |= {"shortened": shortened, "whole": _whole}
    return environment.get_template(TEMPLATE).render(
        report=report,
        words=report_words,
        plots=report_plots,
        reading=_reading,
        recipe=yaml.safe_dump(report.recipe, sort_keys=False, allow_unicode=True, width=100),
        steps=[_step(number, step.found) for number, step in enumerate(report.steps, start=1)],
        **_comparison(report, others),
    )


def findings(found: dict[str, Any]) -> dict[str, str]:
    """What a step measured, in words, without what is drawn."""
    lists = curves(found)
    told = {key: value for key, value in found.items() if key not in lists and key != "block_influence"}
    return {key.replace("_", " "): shortened(value) for key, value in told.items()}


def curves(found: dict[str, Any]) -> dict[str, list[float]]:
    """The lists of numbers among a step's findings that are long enough to be drawn as a line."""
    lists = {key: value for key, value in found.items() if isinstance(value, list | tuple) and key not in DRAWN}
    return {key: list(value) for key, value in lists.items() if len(value) > 2 and all(map(_is_number, value))}


def shortened(value: object) -> str:
    """A value from a recipe, a step's findings or a machine's facts on one line."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return report_numbers.number(value)
        case str():
            return value
        case [before, after] if _is_number(before) and _is_number(after):
            return f"{shortened(before)} → {shortened(after)}"
        case [*items] if not any(isinstance(item, list | dict) for item in items):
            return ", ".join(map(shortened, items)) or "none"
    return json.dumps(value, ensure_ascii=False, default=str)


def _step(number: int, found: dict[str, Any]) -> dict[str, Any]:
    drawn: list[Markup] = []
    if influence := found.get("block_influence"):
        drawn.append(report_plots.influence(number, influence, found.get("dropped", ())))
    for index, (name, values) in enumerate(curves(found).items(), start=1):
        drawn.append(report_plots.curve(f"curve-{number}-{index}", CURVES.get(name, name.replace("_", " ")), values))
    return {"found": findings(found), "plots": drawn}


def _comparison(report: Report, others: Sequence[Report]) -> dict[str, Any]:
    """The Pareto fronts, a row for each candidate, and who could not be compared for what reason."""
    found = candidates(report, others)
    decode = {speed.batch: speed.parent.value for speed in report.speed if speed.what == "decode"}
    shown = fronts(found)
    beaten = {one: [] for one in range(len(found))}
    for front in shown:
        for one, lost in zip(front.members, front.beaten, strict=True):
            if lost:
                beaten[found.index(one)].append(front.title)
    return {
        "front_plots": [drawn_front(front, decode.get(front.batch or 0, 0.0)) for front in shown],
        "candidates": [(one, beaten[index]) for index, one in enumerate(found)],
        "batches": list(found[0].decode) if found else [],
        "left_out": [(other.name, reason) for other in others if (reason := unlike(report, other))],
    }


def _reading(speed: Speed) -> str:
    outcome = report_words.speed_verdict(speed)
    return READINGS.get((speed.unit, outcome), report_words.NO_DIFFERENCE)


def _whole(text: str) -> str:
    """No line ends inside an interval."""
    return text.replace(" to ", f"{NO_BREAK}to{NO_BREAK}").replace(" %", f"{NO_BREAK}%")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
