"""What does a serving comparison look like? Ratios to vLLM's own server, with their intervals, as SVG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.serving_report import BASE, Summary

PANELS = {
    "path_us_per_token": "CPU time per token, client to\nengine core (less is better)",
    "ttft_p50_ms": "time to first token, median\n(less is better)",
    "gap_p95_ms": "time between tokens, 95th\npercentile (less is better)",
    "tokens_per_s": "tokens per second\n(more is better)",
}
LABELS = {
    "ray-llm": "ray.serve.llm, as shipped",
    "ray-llm-direct": "ray.serve.llm, HAProxy and direct streaming",
    "headrace": "Headrace",
}
COLOURS = {"ray-llm": "#b8860b", "ray-llm-direct": "#a23b72", "headrace": "#1f6f8b"}
TICKS = (0.125, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)


def draw(summary: Sequence[Summary], model: str, path: Path) -> None:
    """Writes one model's plot: a row for each API, a column for each value."""
    rows = [row for row in summary if row["model"] == model and row["system"] != BASE]
    apis = list(dict.fromkeys(row["api"] for row in rows))
    matplotlib.rcParams |= {"svg.hashsalt": model, "svg.fonttype": "none", "font.size": 9}
    figure = Figure(figsize=(11, 0.9 + 2.5 * len(apis)), layout="constrained")
    grid: Any = figure.subplots(len(apis), len(PANELS), squeeze=False, sharex=True)
    for lines, api in zip(grid, apis, strict=True):
        for axes, name in zip(lines, PANELS, strict=True):
            _panel(axes, [row for row in rows if row["api"] == api], name)
        lines[0].set_ylabel(f"{api}\nratio to vLLM's own server")
    for axes, title in zip(grid[0], PANELS.values(), strict=True):
        axes.set_title(title, fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("concurrent streams")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.savefig(path, metadata={"Date": None})


def _panel(axes: Axes, rows: Sequence[Summary], name: str) -> None:
    streams = sorted({row["streams"] for row in rows})
    systems = [system for system in LABELS if any(row["system"] == system for row in rows)]
    seen = [1.0]
    for i, system in enumerate(systems):
        own = [row for row in rows if row["system"] == system and name in row["ratio"]]
        told = [row["ratio"][name] for row in own]
        at = [streams.index(row["streams"]) + 0.16 * (i - (len(systems) - 1) / 2) for row in own]
        means = [one["mean"] for one in told]
        below = [one["mean"] - (one["low"] or one["mean"]) for one in told]
        above = [(one["high"] or one["mean"]) - one["mean"] for one in told]
        style = {"fmt": "o", "markersize": 4, "capsize": 3, "color": COLOURS[system], "label": LABELS[system]}
        axes.errorbar(at, means, yerr=[below, above], **style)
        seen += [one["low"] or one["mean"] for one in told] + [one["high"] or one["mean"] for one in told]
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_yscale("log", base=2)
    axes.set_ylim(min(seen) / 1.25, max(seen) * 1.25)
    axes.yaxis.set_major_locator(FixedLocator(TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xticks(range(len(streams)), [str(width) for width in streams])
    axes.set_xlim(-0.5, len(streams) - 0.5)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
