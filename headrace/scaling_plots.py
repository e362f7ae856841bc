"""What do scale decisions look like in pictures?"""

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import pairwise
from math import nan

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autoscaling import ENGINE_PREFIX, Entry
from headrace.plan_plots import COLOURS, DASHES
from headrace.report_svg import drawn

MINUTE_S = 60.0
SILENT_S = 150.0
"""Between two decisions that were stored: one comes each minute, so nobody decided then and nothing is drawn."""

Line = tuple[str, Callable[[Entry], float]]
REPLICAS: tuple[Line, ...] = (
    ("wanted", lambda entry: entry["wanted"]),
    ("running", lambda entry: entry["running"]),
    ("starting", lambda entry: entry["starting"]),
)
DEMAND: tuple[Line, ...] = (
    ("busy with tokens", lambda entry: entry["numbers"]["demand"]["work_share"]),
    ("need of the moment", lambda entry: entry["numbers"]["wish"]),
)
REQUESTS: tuple[Line, ...] = (("requests", lambda entry: entry["numbers"]["demand"]["requests"]),)


def replicas(entries: Sequence[Entry]) -> Markup:
    """Of one model: wanted, running and starting."""
    return _drawn("replicas", "Replicas over time", entries, REPLICAS, "replicas")


def demand(entries: Sequence[Entry]) -> Markup:
    """Of one model: what its load asks for, in engines."""
    return _drawn("demand", "Demand over time", entries, DEMAND, "engines")


def requests(entries: Sequence[Entry]) -> Markup:
    """Of one model: requests that run, and that wait for longer than a moment."""
    return _drawn("requests", "Requests over time", entries, REQUESTS, "requests")


def _drawn(name: str, label: str, entries: Sequence[Entry], lines: Sequence[Line], unit: str) -> Markup:
    model, end_s = entries[0]["deployment"].removeprefix(ENGINE_PREFIX), entries[-1]["at_s"]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for index, (title, value) in enumerate(lines):
            _steps(axes, entries, value, end_s, linestyle=DASHES[index], color=COLOURS[index], label=title)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(f"minutes from {datetime.fromtimestamp(end_s):%Y-%m-%d %H:%M:%S}")
        axes.set_ylabel(unit)
        axes.grid(linewidth=0.5)
        axes.set_axisbelow(True)
        if len(lines) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", frameon=False, ncols=2)

    return drawn(f"{name}-{model}", f"{label}: {model}", 2.6, paint)


def _steps(axes: Axes, entries: Sequence[Entry], value: Callable[[Entry], float], end_s: float, **look) -> None:
    """A line that holds until the next decision, and breaks where nobody decided."""
    across, up = [], []
    for entry, after in [*pairwise(entries), (entries[-1], None)]:
        across.append((entry["at_s"] - end_s) / MINUTE_S)
        up.append(value(entry))
        if after and after["at_s"] - entry["at_s"] > SILENT_S:
            across.append(across[-1])
            up.append(nan)
    axes.plot(across, up, drawstyle="steps-post", linewidth=1.2, marker=".", markersize=2, **look)
