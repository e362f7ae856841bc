"""How does a person read a plan outside the terminal? As one HTML file that asks nothing of any other."""

from collections.abc import Sequence
from math import isfinite

from headrace import plan_curves, plan_plots, plan_served, plan_words
from headrace.pages import environment
from headrace.plan_answer import Answer, Replica
from headrace.plan_plots import COLOURS, Series
from headrace.plan_result import Result

TEMPLATE = "plan.html.j2"


def page(result: Result) -> str:
    """The plan as HTML. Same input, same bytes."""
    templates = environment()
    templates.filters |= {name: getattr(plan_words, name) for name in ("number", "memory", "time", "replicas")}
    found, why = plan_words.best(result.answers)
    shown = series(result)
    return templates.get_template(TEMPLATE).render(
        result=result,
        words=plan_words,
        heading=plan_words.heading(result),
        asked=plan_words.asked(result),
        name=lambda answer: plan_words.name(answer, result),
        lines=lambda answer: plan_served.all_lines(answer, result),
        carried=list(plan_served.carried(result)),
        best=found,
        why=why if len(result.answers) > 1 else "",
        shown=shown,
        left_out=len([one for one in result.answers if one.replica]) - len(shown),
        plots=plan_plots,
        has_target=isfinite(result.traffic.ttft_s),
    )


def series(result: Result) -> list[Series]:
    """The best that fit, as many as there are colours, with their curves."""
    left = [answer for answer in result.answers if answer.replica]
    chosen: list[Answer] = []
    while left and len(chosen) < len(COLOURS):
        chosen.append(plan_words.best(left)[0])
        left.remove(chosen[-1])
    if not chosen:
        return []
    rates = plan_curves.rates(plan_curves.middle_rate(chosen, result.traffic))
    return [_series(answer, answer.replica, result, rates) for answer in chosen if answer.replica]


def _series(answer: Answer, replica: Replica, result: Result, rates: Sequence[float]) -> Series:
    bands = plan_curves.replicas(answer, replica, result.traffic, rates)
    price = result.prices.get(answer.device.name)
    return Series(
        name=_named(plan_words.name(answer, result), replica),
        answer=answer,
        replica=replica,
        points=plan_curves.points(answer, replica, result.traffic),
        replicas=bands,
        costs=plan_curves.costs(bands, replica, result.traffic, price.per_hour) if price else [],
        waits=plan_curves.waits(answer, replica, result.traffic),
    )


def _named(name: str, replica: Replica) -> str:
    return f"{name}, {replica.fit.layout}" if replica.devices > 1 else name
