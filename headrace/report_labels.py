"""Where do the names of points stand, so that they cover neither points nor intervals nor each other?"""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compress.report import Interval
from headrace.report_svg import FONT_POINTS

LETTER_POINTS = 0.56 * FONT_POINTS
GAP_POINTS = 6.0
POINT_POINTS = 3.0
"""Half of what a point takes."""
PLACES = (
    ("left", 0.8, 1.3), ("right", -0.8, 1.3), ("left", 0.8, -1.3), ("right", -0.8, -1.3),
    ("left", 1, 0), ("right", -1, 0), ("center", 0, 1.7), ("center", 0, -1.7),
)  # fmt: skip
"""Where a name may stand beside its point, best first: alignment, and steps of GAP_POINTS right and up."""
Named = tuple[str, Interval, Interval, str]
"""Name, where it lies across and up, and colour."""


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


def label(figure: Figure, axes: Axes, points: Sequence[Named]) -> None:
    """Writes each name, the first ones first; one that finds no room is left out."""
    figure.draw_without_rendering()  # before this, points have no place yet
    room = _Box(axes.bbox.x0, axes.bbox.y0, axes.bbox.x1, axes.bbox.y1)
    taken = [box for _, x, y, _ in points for box in _covered(axes, x, y)]
    for name, x, y, colour in points:
        across, up = axes.transData.transform((x.value, y.value))
        spots = ((spot, _written(name, across, up, *spot)) for spot in PLACES)
        free = ((spot, box) for spot, box in spots if box.inside(room) and not any(map(box.meets, taken)))
        (align, right, above), box = next(free, (PLACES[0], None))
        if box is not None:
            taken.append(box)
            offset = (right * GAP_POINTS, above * GAP_POINTS)
            at = {"xytext": offset, "textcoords": "offset points", "ha": align, "va": "center"}
            axes.annotate(name, (x.value, y.value), color=colour, **at)


def _covered(axes: Axes, x: Interval, y: Interval) -> list[_Box]:
    """The room that a point and its intervals take."""
    ends = [(x.value, y.value), (x.low, y.low), (x.high, y.high)]
    (across, up), (left, bottom), (right, top) = axes.transData.transform(ends)
    point = _Box(across - POINT_POINTS, up - POINT_POINTS, across + POINT_POINTS, up + POINT_POINTS)
    return [point, _Box(left, up - 1, right, up + 1), _Box(across - 1, bottom, across + 1, top)]


def _written(name: str, left: float, bottom: float, align: str, right: float, up: float) -> _Box:
    """The room that a name takes beside a point, in points."""
    width, height = LETTER_POINTS * len(name), 1.2 * FONT_POINTS
    start = left + right * GAP_POINTS - {"left": 0.0, "center": width / 2, "right": width}[align]
    middle = bottom + up * GAP_POINTS
    return _Box(start, middle - height / 2, start + width, middle + height / 2)
