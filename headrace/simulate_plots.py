"""What does a simulation look like in pictures?"""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headrace.plan_plots import COLOURS, DASHES
from headrace.report_svg import MUTED, drawn
from simulation.outcome import Digest

LEGEND_IN = 0.2
"""Height of a row of the legend."""
MINUTE_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One run, as it is drawn."""

    name: str
    digest: Digest


def replicas(found: Sequence[Series]) -> Markup:
    """Replicas over time, those that start and drain too."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        _over_time(axes, found, lambda digest: digest.present)
        _finish(figure, axes, "minutes", "replicas")

    return drawn("replicas", "Replicas over time", _height(found, 2.4), paint)


def arrivals(found: Sequence[Series]) -> Markup:
    """Requests that came, which is the same for all."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        first = found[0].digest
        minutes = [at_s / MINUTE_S for at_s in first.at_s]
        axes.fill_between(minutes, first.per_s, step="post", color=MUTED, alpha=0.4, linewidth=0)
        axes.set_ylim(bottom=0)
        _finish(figure, axes, "minutes", "requests/s", legend=False)

    return drawn("arrivals", "Requests over time", 1.8, paint)


def met(found: Sequence[Series]) -> Markup:
    """Share of requests that met both targets, by when they came."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        _over_time(axes, found, lambda digest: [float("nan") if one is None else 100 * one for one in digest.met])
        _finish(figure, axes, "minutes", "% that met both targets")

    return drawn("met", "Targets met over time", _height(found, 2.4), paint)


def waits(found: Sequence[Series], target_s: float) -> Markup:
    """Which share of requests got its first token within how long."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for index, one in enumerate(found):
            if not (times := one.digest.ttft_s):
                continue
            shares = [100 * place / (len(times) - 1) for place in range(len(times))]
            axes.plot(times, shares, linestyle=DASHES[index], color=COLOURS[index], linewidth=1.2, label=one.name)
        axes.axvline(target_s, color=MUTED, linewidth=0.8)
        axes.set_xscale("log")
        _finish(figure, axes, "s to the first token", "% of requests")

    return drawn("waits", "Time to the first token", _height(found, 2.4), paint)


def price(found: Sequence[Series], wanted: float) -> Markup:
    """What was met against what it took."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for index, one in enumerate(found):
            summary = one.digest.summary
            axes.plot(
                summary.device_hours, 100 * summary.attainment, "o", color=COLOURS[index], markersize=5, label=one.name
            )
        axes.axhline(100 * wanted, color=MUTED, linewidth=0.8)
        _finish(figure, axes, "device-hours", "% that met both targets")

    return drawn("price", "Targets met against device-hours", _height(found, 2.4), paint)


def _over_time(axes: Axes, found: Sequence[Series], values) -> None:
    for index, one in enumerate(found):
        minutes = [at_s / MINUTE_S for at_s in one.digest.at_s]
        axes.plot(
            minutes,
            values(one.digest),
            drawstyle="steps-post",
            linestyle=DASHES[index],
            color=COLOURS[index],
            linewidth=1.2,
            label=one.name,
        )
    axes.set_ylim(bottom=0)


def _finish(figure: Figure, axes: Axes, across: str, up: str, *, legend: bool = True) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(linewidth=0.5)
    axes.set_axisbelow(True)
    if legend:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", frameon=False, ncols=2)


def _height(found: Sequence[Series], bare_in: float) -> float:
    return bare_in + LEGEND_IN * (1 + (len(found) + 1) // 2)
