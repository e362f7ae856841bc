"""How does a matplotlib figure become a part of a page? As SVG without metadata, coloured by the page's variables."""

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

WIDTH_IN = 4.6
"""Narrow, so that a telephone shows it in its own width with letters that can still be read."""
POINTS_PER_IN = 72
FONT_POINTS = 8.5

INK, MUTED, LINE, ACCENT = "#0000f1", "#0000f2", "#0000f3", "#0000f4"
BETTER, WORSE, SAME = "#0000f5", "#0000f6", "#0000f7"
PARTS = {
    "embedding": "#0000e1",
    "attention": "#0000e2",
    "feed_forward": "#0000e3",
    "head": "#0000e4",
    "norms": "#0000e5",
    "scales": "#0000e6",
    "other": "#0000e7",
}
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    LINE: "line",
    ACCENT: "accent",
    BETTER: "better",
    WORSE: "worse",
    SAME: "same",
    **{colour: f"part-{part}" for part, colour in PARTS.items()},
}
"""Stand-ins, and the variables of the page's style sheet that replace them: a plot is as light or dark as its page."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": FONT_POINTS,
    "axes.labelsize": FONT_POINTS,
    "axes.titlesize": FONT_POINTS,
    "axes.titlelocation": "left",
    "axes.titlecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "figure.dpi": POINTS_PER_IN,
    "grid.color": LINE,
    "text.color": INK,
    "xtick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.color": LINE,
    "ytick.labelcolor": INK,
}


def drawn(name: str, label: str, height_in: float, paint: Callable[[Figure], None]) -> Markup:
    """What `paint` makes of an empty figure; `label` is read out where it can't be seen. Same input, same bytes."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        matplotlib.rcParams["svg.hashsalt"] = name
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        paint(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return _inlined(file.getvalue(), name, label, height_in)


def _inlined(text: str, name: str, label: str, height_in: float) -> Markup:
    """Without what only a file of its own needs, and with ids that no other plot of the page has."""
    body = text[text.index(">", text.index("<svg")) + 1 :]
    for foreign in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r"<!--.*?-->"):
        body = re.sub(foreign, "", body, flags=re.DOTALL)
    body = re.sub(r' id="', f' id="{name}-', body)
    body = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub("|".join(VARIABLES), lambda colour: f"var(--{VARIABLES[colour[0]]})", body)
    box = f"0 0 {WIDTH_IN * POINTS_PER_IN:.1f} {height_in * POINTS_PER_IN:.1f}"
    opening = Markup('<svg role="img" aria-label="{}" viewBox="{}">').format(label, box)
    return opening + Markup(re.sub(r"\s*\n\s*", "\n", body).strip())
