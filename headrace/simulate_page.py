"""How does a person read a simulation outside the terminal? As one HTML file that asks nothing of any other."""

from headrace import simulate_plots, simulate_words
from headrace.pages import environment
from headrace.plan_plots import COLOURS
from headrace.simulate import Result
from headrace.simulate_plots import Series

TEMPLATE = "simulate.html.j2"
SHOWN = 100
"""Decisions of the first run that are written."""


def page(result: Result) -> str:
    """The simulation as HTML. Same input, same bytes."""
    first_seed = [run for run in result.runs if run.seed == 0]
    # Those that meet most for their hours are drawn, the first asked for always.
    others = sorted(first_seed[1:], key=lambda run: -run.digest.summary.attainment)
    drawn = [first_seed[0], *others][: len(COLOURS)]
    return (
        environment()
        .get_template(TEMPLATE)
        .render(
            result=result,
            words=simulate_words,
            plots=simulate_plots,
            shown=[Series(name=str(run.asked), digest=run.digest) for run in drawn],
            left_out=len(first_seed) - len(drawn),
            decisions=first_seed[0].digest.changes[:SHOWN],
            first=first_seed[0],
        )
    )
