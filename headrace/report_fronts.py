"""How is a Pareto front drawn? Every candidate a named point with its intervals; what is dominated is grey."""

from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from compress.report import Interval
from headrace.pareto import Front
from headrace.report_axes import spread
from headrace.report_labels import label
from headrace.report_numbers import number, size
from headrace.report_svg import ACCENT, INK, MUTED, SAME, drawn

CEILING = 8.0
"""Perplexity over so many times the parent's is drawn at the upper edge, with its value: it would flatten the rest."""
MARKERS = {"this": "D", "parent": "s", "other": "o"}
BEYOND = "^"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Mark:
    name: str
    x: Interval
    y: Interval
    shape: str
    colour: str
    beaten: bool


def front(found: Front, parent_tokens_per_s: float = 0.0) -> Markup:
    """Perplexity against bytes, or against decode speed where the parent ran at so many tokens/s."""
    marks = _marks(found)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        _draw(axes, marks, "post" if found.batch is None else "pre")
        axes.margins(0.12)
        axes.set_ylabel("perplexity, less is better")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        spread(axes, "y", [bound for mark in marks for bound in (mark.y.low, mark.y.high)])
        if found.batch is None:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value)))
            axes.set_xlabel("bytes on disk, less is better")
        else:
            _speed_axes(axes, found.batch, parent_tokens_per_s)
        label(figure, axes, [(mark.name, mark.x, mark.y, mark.colour) for mark in marks])

    name = "front-bytes" if found.batch is None else f"front-decode-{found.batch}"
    return drawn(name, f"Perplexity against {found.title}", 3.0 if found.batch is None else 3.3, paint)


def _marks(found: Front) -> list[_Mark]:
    edge = CEILING * found.members[0].perplexity.value
    marks = []
    for one, x, beaten in zip(found.members, found.across, found.beaten, strict=True):
        colour = SAME if beaten else ACCENT if one.kind == "this" else INK
        name, y, shape = one.name, one.perplexity, MARKERS[one.kind]
        if y.value > edge:
            name, shape = f"{name} {number(y.value)}", BEYOND
            y = Interval(value=edge, low=edge, high=edge)
        marks.append(_Mark(name=name, x=x, y=y, shape=shape, colour=colour, beaten=beaten))
    return marks


def _draw(axes: Axes, marks: list[_Mark], where: str) -> None:
    for mark in marks:
        x, y, colour = mark.x, mark.y, mark.colour
        axes.plot([x.low, x.high], [y.value, y.value], color=colour, linewidth=0.9)
        axes.plot([x.value, x.value], [y.low, y.high], color=colour, linewidth=0.9)
        axes.plot(x.value, y.value, marker=mark.shape, color=colour, markersize=5, zorder=3)
    kept = sorted((mark.x.value, mark.y.value) for mark in marks if not mark.beaten)
    across, up = zip(*kept, strict=True)
    axes.plot(across, up, drawstyle=f"steps-{where}", color=MUTED, linewidth=0.8, linestyle=":")


def _speed_axes(axes: Axes, batch: int, parent_tokens_per_s: float) -> None:
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.set_xlabel(f"decode speed at batch {batch} over the parent's, more is better")
    scales = (lambda ratio: ratio * parent_tokens_per_s, lambda rate: rate / parent_tokens_per_s)
    rates = axes.secondary_xaxis("top", functions=scales)
    rates.set_xlabel("the same in tokens/s, as the parent ran here")
    rates.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
