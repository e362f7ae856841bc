"""How is a Pareto front drawn? Every candidate a named point with its intervals; what is dominated is grey."""

from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from headrace.pareto import Candidate, Front
from headrace.report_axes import spread
from headrace.report_numbers import size
from headrace.report_svg import ACCENT, FONT_POINTS, INK, MUTED, SAME, drawn

LETTER_POINTS = 0.56 * FONT_POINTS
GAP_POINTS = 6.0
MARKERS = {"this": "D", "parent": "s", "other": "o"}
PLACES = (
    ("left", 0.8, 1.3), ("right", -0.8, 1.3), ("left", 0.8, -1.3), ("right", -0.8, -1.3),
    ("left", 1, 0), ("right", -1, 0), ("center", 0, 1.7), ("center", 0, -1.7),
)  # fmt: skip
"""Where a name may stand beside its point, best first: alignment, and steps of GAP_POINTS right and up."""


@dataclass(frozen=True, slots=True)
class _Box:
    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: "_Box") -> bool:
        beside = self.right <= other.left or other.right <= self.left
        return not (beside or self.top <= other.bottom or other.top <= self.bottom)

    def inside(self, other: "_Box") -> bool:
        across = other.left <= self.left and self.right <= other.right
        return across and other.bottom <= self.bottom and self.top <= other.top


def front(found: Front, parent_tokens_per_s: float = 0.0) -> Markup:
    """Perplexity against bytes, or against decode speed where the parent ran at so many tokens/s."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        _points(axes, found)
        axes.margins(0.12)
        axes.set_ylabel("perplexity, less is better")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        spread(axes, "y", [bound for one in found.members for bound in (one.perplexity.low, one.perplexity.high)])
        if found.batch is None:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value)))
            axes.set_xlabel("bytes on disk, less is better")
        else:
            _speed_axes(axes, found.batch, parent_tokens_per_s)
        _name(figure, axes, found)

    name = "front-bytes" if found.batch is None else f"front-decode-{found.batch}"
    return drawn(name, f"Perplexity against {found.title}", 3.0 if found.batch is None else 3.3, paint)


def _speed_axes(axes: Axes, batch: int, parent_tokens_per_s: float) -> None:
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.set_xlabel(f"decode speed at batch {batch} over the parent's, more is better")
    scales = (lambda ratio: ratio * parent_tokens_per_s, lambda rate: rate / parent_tokens_per_s)
    axes.secondary_xaxis("top", functions=scales).set_xlabel("the same in tokens/s, as the parent ran here")


def _points(axes: Axes, found: Front) -> None:
    for one, x, lost in zip(found.members, found.across, found.beaten, strict=True):
        colour, y = _colour(one, lost), one.perplexity
        axes.plot([x.low, x.high], [y.value, y.value], color=colour, linewidth=0.9)
        axes.plot([x.value, x.value], [y.low, y.high], color=colour, linewidth=0.9)
        axes.plot(x.value, y.value, marker=MARKERS[one.kind], color=colour, markersize=5, zorder=3)
    points = zip(found.members, found.across, found.beaten, strict=True)
    kept = sorted((x.value, one.perplexity.value) for one, x, lost in points if not lost)
    line = [list(values) for values in zip(*kept, strict=True)]
    where = "post" if found.batch is None else "pre"
    axes.step(*line, where=where, color=MUTED, linewidth=0.8, linestyle=":")


def _name(figure: Figure, axes: Axes, found: Front) -> None:
    """Writes each name where it covers nothing; one that finds no room is left to the table under the plot."""
    figure.draw_without_rendering()  # before this, points have no place yet
    points = [(x.value, one.perplexity.value) for one, x in zip(found.members, found.across, strict=True)]
    places = [axes.transData.transform(point) for point in points]
    room = _Box(axes.bbox.x0, axes.bbox.y0, axes.bbox.x1, axes.bbox.y1)
    taken = [_Box(x - 3, y - 3, x + 3, y + 3) for x, y in places] + _bars(axes, found)
    for one, point, (left, bottom), lost in zip(found.members, points, places, found.beaten, strict=True):
        spots = ((spot, _written(one.name, left, bottom, *spot)) for spot in PLACES)
        free = ((spot, box) for spot, box in spots if box.inside(room) and not any(map(box.meets, taken)))
        (align, right, up), box = next(free, (PLACES[0], None))
        if box is not None:
            taken.append(box)
            axes.annotate(
                one.name,
                point,
                (right * GAP_POINTS, up * GAP_POINTS),
                textcoords="offset points",
                ha=align,
                va="center",
                color=_colour(one, lost),
            )


def _bars(axes: Axes, found: Front) -> list[_Box]:
    """The room that the intervals take."""
    boxes = []
    for one, x in zip(found.members, found.across, strict=True):
        y = one.perplexity
        ends = [(x.low, y.value), (x.high, y.value), (x.value, y.low), (x.value, y.high)]
        (left, row), (right, _), (column, bottom), (_, top) = axes.transData.transform(ends)
        boxes += [_Box(left, row - 1, right, row + 1), _Box(column - 1, bottom, column + 1, top)]
    return boxes


def _written(name: str, left: float, bottom: float, align: str, right: float, up: float) -> _Box:
    """The room that a name takes beside a point, in points."""
    width, height = LETTER_POINTS * len(name), 1.2 * FONT_POINTS
    start = left + right * GAP_POINTS - {"left": 0.0, "center": width / 2, "right": width}[align]
    middle = bottom + up * GAP_POINTS
    return _Box(start, middle - height / 2, start + width, middle + height / 2)


def _colour(one: Candidate, lost: bool) -> str:
    if lost:
        return SAME
    return ACCENT if one.kind == "this" else INK
