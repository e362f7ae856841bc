"""How does a person read scale decisions outside the terminal? As one HTML file that asks nothing of any other."""

from itertools import groupby

from autoscaling import ENGINE_PREFIX, Entry
from headrace import scaling_plots
from headrace.pages import environment
from headrace.scaling import changes
from headrace.scaling_table import ADVICE, when

TEMPLATE = "scaling.html.j2"
SHOWN = 200
"""Newest changes of each model that are written."""


def page(entries: list[Entry]) -> str:
    """Each model's plots and decisions as HTML. Same input, same bytes."""
    by_model = groupby(sorted(entries, key=lambda entry: entry["deployment"]), lambda entry: entry["deployment"])
    models = [(name.removeprefix(ENGINE_PREFIX), list(of)) for name, of in by_model]
    return (
        environment()
        .get_template(TEMPLATE)
        .render(
            models=[(name, of, changes(of)) for name, of in models],
            since=when(entries[0]["at_s"]),
            until=when(entries[-1]["at_s"]),
            advice=ADVICE if any(entry["advice"] for entry in entries) else "",
            shown=SHOWN,
            plots=scaling_plots,
            when=when,
        )
    )
