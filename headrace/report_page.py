"""How does a person read an artefact's report? As one HTML file that asks nothing of any other."""

from collections.abc import Sequence
from typing import Any

import yaml
from markupsafe import Markup

from compress.report import Report, Speed
from headrace import report_numbers, report_plots, report_words
from headrace.pages import environment
from headrace.pareto import beaten_in, candidates, fronts, unlike
from headrace.report_findings import LEARNT, curves, findings, shortened, title
from headrace.report_fronts import front as drawn_front

TEMPLATE = "report.html.j2"
NO_BREAK = "\u00a0"
READINGS = {
    ("tokens/s", "better"): "faster",
    ("tokens/s", "worse"): "slower",
    ("s", "better"): "sooner",
    ("s", "worse"): "later",
}


def page(report: Report, others: Sequence[Report] = ()) -> str:
    """The report as HTML, with the others on its Pareto fronts where they can be compared. Same input, same bytes."""
    templates = environment()
    for write in ("number", "measured", "share", "points", "ratio", "times", "size", "duration", "many"):
        templates.filters[write] = getattr(report_numbers, write)
    templates.filters |= {"shortened": shortened, "whole": _whole}
    return templates.get_template(TEMPLATE).render(
        report=report,
        words=report_words,
        plots=report_plots,
        reading=_reading,
        recipe=yaml.safe_dump(report.recipe, sort_keys=False, allow_unicode=True, width=100),
        steps=[_step(number, step.found) for number, step in enumerate(report.steps, start=1)],
        **_comparison(report, others),
    )


def _step(number: int, found: dict[str, Any]) -> dict[str, Any]:
    drawn: list[Markup] = []
    if influence := found.get("block_influence"):
        drawn.append(report_plots.influence(number, influence, found.get("dropped", ())))
    if learnt := found.get(LEARNT):
        drawn.append(report_plots.learning(f"learning-{number}", learnt))
    for index, (name, values) in enumerate(curves(found).items(), start=1):
        drawn.append(report_plots.curve(f"curve-{number}-{index}", title(name), values))
    return {"found": findings(found), "plots": drawn}


def _comparison(report: Report, others: Sequence[Report]) -> dict[str, Any]:
    """The Pareto fronts, a row for each candidate, and who could not be compared for what reason."""
    found = candidates(report, others)
    decode = {speed.batch: speed.parent.value for speed in report.speed if speed.what == "decode"}
    shown = fronts(found)
    return {
        "front_plots": [drawn_front(front, decode.get(front.batch or 0, 0.0)) for front in shown],
        "candidates": [(one, beaten_in(one, shown)) for one in found],
        "batches": list(found[0].decode) if found else [],
        "left_out": [(other.name, reason) for other in others if (reason := unlike(report, other))],
    }


def _reading(speed: Speed) -> str:
    outcome = report_words.speed_verdict(speed)
    return READINGS.get((speed.unit, outcome), report_words.NO_DIFFERENCE)


def _whole(text: str) -> str:
    """No line ends inside an interval."""
    return text.replace(" to ", f"{NO_BREAK}to{NO_BREAK}").replace(" %", f"{NO_BREAK}%")
