"""How are ratios with their intervals drawn, one row each? As a forest plot: the line at 1 is no change."""

import math
from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from compress.report import Interval
from headrace.report_numbers import ratio
from headrace.report_svg import BETTER, INK, LINE, MUTED, SAME, WORSE
from headrace.report_words import Verdict

MARKERS: dict[Verdict, tuple[str, str]] = {"better": ("^", BETTER), "worse": ("v", WORSE), "same": ("o", SAME)}
"""Shape and colour: a reader who sees no colours still sees which way it went."""
LOG_FROM = 4.0
"""Largest / smallest value from which an axis is logarithmic."""
FEW_DECADES = 100.0
"""Largest / smallest value up to which such an axis has ticks at 2 and 5 too."""
Row = tuple[str, Interval, Verdict]


def forest(axes: Axes, rows: Sequence[Row]) -> None:
    """One row for each ratio, the first on top; grey where the interval includes 1. Infinite ones are only named."""
    axes.axvline(1, color=MUTED, linewidth=0.8)
    for index, (_, interval, outcome) in enumerate(rows):
        shape, colour = MARKERS[outcome]
        if all(map(math.isfinite, (interval.value, interval.low, interval.high))):
            axes.plot([interval.low, interval.high], [index, index], color=colour, linewidth=1.4)
            axes.plot(interval.value, index, marker=shape, color=colour, markersize=5)
        beside = axes.get_yaxis_transform()
        axes.text(1.02, index, ratio(interval).value, transform=beside, va="center", color=_ink(outcome))
    axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    for label, (_, _, outcome) in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color(_ink(outcome))
    spread(axes, "x", [value for _, interval, _ in rows for value in (1, interval.low, interval.high)], "x")
    plain_rows(axes, len(rows))


def plain_rows(axes: Axes, count: int) -> None:
    """Rows from top to bottom, without an axis line of their own."""
    axes.set_ylim(count - 0.45, -0.55)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", linewidth=0.5, color=LINE)
    axes.set_axisbelow(True)


def spread(axes: Axes, which: Literal["x", "y"], values: Sequence[float], unit: str = "") -> None:
    """Makes an axis logarithmic where its values lie far apart, with plain numbers beside its ticks."""
    usable = [value for value in values if 0 < value < math.inf]
    factor = max(usable) / min(usable) if usable else 1.0
    axis, scale = (axes.xaxis, axes.set_xscale) if which == "x" else (axes.yaxis, axes.set_yscale)
    if factor >= LOG_FROM:
        scale("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if factor < FEW_DECADES else (1,), numticks=6))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}{unit}"))


def _ink(outcome: Verdict) -> str:
    return SAME if outcome == "same" else INK
