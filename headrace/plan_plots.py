"""What does a plan look like in pictures?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from cluster.devices import Device
from headrace.plan_answer import Answer, Replica
from headrace.plan_curves import Band, Point, Wait
from headrace.report_svg import MUTED, PARTS, drawn

COLOURS = (PARTS["embedding"], PARTS["attention"], PARTS["feed_forward"], PARTS["head"], PARTS["norms"])
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
"""A reader who sees no colours still tells the lines apart."""
SHAPES = ("^", "o", "s")
"""Of a prompt, of a token alone, of a full replica."""
TERA = 1e12
TICKS_UP_TO = 200.0
"""Largest / smallest value up to which an axis has ticks at 2 and 5 too."""
LEGEND_IN = 0.2
"""Height of a row of the legend."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One form of the model on one device, as it is drawn."""

    name: str
    answer: Answer
    replica: Replica
    points: Sequence[Point]
    replicas: Sequence[Band]
    costs: Sequence[Band]
    """None of them where the device has no price."""
    waits: Sequence[Wait]


def roofline(found: Sequence[Series]) -> Markup:
    """What each device can do at most by operations for each byte, and what the model's steps reach."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        reach = [point.intensity for one in found for point in one.points]
        left, right = min(reach) / 2, max(max(reach), *(_ridge(one) for one in found)) * 3
        for index, one in enumerate(found):
            _roof(axes, index, one, left, right)
            for shape, point in zip(SHAPES, one.points, strict=True):
                axes.plot(point.intensity, point.flops / TERA, shape, color=COLOURS[index], markersize=5)
        _logarithmic(axes, "operations for each byte read or written", "TFLOP/s of one device")
        _legend(figure, axes)

    return drawn("roofline", "Roofline: each device's limits, and where steps are", _height(found, 2.9), paint)


def replicas(found: Sequence[Series], asked: float | None) -> Markup:
    """Replicas against requests per second."""
    return _bands("replicas", "Replicas against rate", [(one.name, one.replicas) for one in found], "replicas", asked)


def costs(found: Sequence[Series], asked: float | None, currency: str) -> Markup:
    """Cost of a million tokens against requests per second."""
    priced = [(one.name, one.costs) for one in found]
    return _bands("costs", "Cost of a million tokens against rate", priced, f"{currency} per million tokens", asked)


def waits(found: Sequence[Series], target_s: float) -> Markup:
    """Seconds to the first token against the rate of one replica."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for index, one in enumerate(found):
            across = [wait.rate_per_s for wait in one.waits]
            axes.plot(
                across,
                [wait.p95_s for wait in one.waits],
                linestyle=DASHES[index],
                color=COLOURS[index],
                label=one.name,
            )
            axes.plot(
                across,
                [wait.mean_s for wait in one.waits],
                linestyle=DASHES[index],
                color=COLOURS[index],
                linewidth=0.7,
            )
        if isfinite(target_s):
            axes.axhline(target_s, color=MUTED, linewidth=0.8)
        _logarithmic(axes, "requests/s of one replica", "s to the first token")
        _legend(figure, axes)

    return drawn("waits", "Time to the first token of one replica", _height(found, 2.6), paint)


def _bands(
    name: str, label: str, found: Sequence[tuple[str, Sequence[Band]]], unit: str, asked: float | None
) -> Markup:
    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for index, (title, bands) in enumerate(found):
            if not bands:
                continue
            across, colour = [band.rate_per_s for band in bands], COLOURS[index]
            axes.plot(across, [band.value for band in bands], linestyle=DASHES[index], color=colour, label=title)
            whole = [band for band in bands if band.high is not None]
            axes.fill_between(
                [band.rate_per_s for band in whole],
                [band.low for band in whole],
                [band.high or band.low for band in whole],
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
        if asked is not None:
            axes.axvline(asked, color=MUTED, linewidth=0.8)
        _logarithmic(axes, "requests/s", unit)
        _legend(figure, axes)

    return drawn(name, label, _height(found, 2.6), paint)


def _roof(axes: Axes, index: int, one: Series, left: float, right: float) -> None:
    device, ridge = one.answer.device, _ridge(one)
    across = [left, ridge, right]
    roof = [min(device.bandwidth_bytes_per_s * each, _peak(one)) / TERA for each in across]
    axes.plot(across, roof, linestyle=DASHES[index], color=COLOURS[index], linewidth=1.2, label=one.name)


def _ridge(one: Series) -> float:
    """From which intensity on arithmetic is the limit."""
    return _peak(one) / one.answer.device.bandwidth_bytes_per_s


def _peak(one: Series) -> float:
    device: Device = one.answer.device
    return device.flops[one.replica.speeds.dtype]


def _logarithmic(axes: Axes, across: str, up: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    write: Callable[[float, int], str] = lambda value, _: f"{value:,.10g}"  # noqa: E731
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_minpos(), axis.get_data_interval()[1]
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < TICKS_UP_TO * low else (1,), numticks=12))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(write))
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(linewidth=0.5)
    axes.set_axisbelow(True)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > 1:
        figure.legend(handles, labels, loc="outside lower left", ncols=2, frameon=False, handlelength=2.6)


def _height(found: Sequence[object], plot_in: float) -> float:
    return plot_in + (LEGEND_IN * ((len(found) + 1) // 2) if len(found) > 1 else 0.0)
