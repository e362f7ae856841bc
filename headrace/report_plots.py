"""What does a report look like in pictures?"""

from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from compress.report import Part, Quality, Speed
from headrace.report_axes import forest, plain_rows
from headrace.report_numbers import duration, size
from headrace.report_svg import ACCENT, PARTS, SAME, WORSE, drawn
from headrace.report_words import EXECUTORS, speed_subject, speed_verdict, verdict


def bytes_by_part(parts: Sequence[Part]) -> Markup:
    """Two bars, parent and artefact, stacked from their parts."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        ordered = sorted(parts, key=lambda part: list(PARTS).index(part.part))
        _stack(axes, 0, [(PARTS[part.part], part.parent_bytes) for part in ordered])
        _stack(axes, 1, [(PARTS[part.part], part.bytes) for part in ordered])
        axes.set_yticks([0, 1], ["parent", "artefact"])
        axes.set_xlim(0, 1.16 * max(axes.get_xlim()))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value)))
        plain_rows(axes, 2)

    return drawn("bytes", "Bytes on disk by part, parent above artefact", 1.25, paint)


def _stack(axes: Axes, row: int, weights: Iterable[tuple[str, int]]) -> None:
    left = 0
    for colour, weight in weights:
        axes.barh(row, weight, left=left, height=0.62, color=colour, linewidth=0)
        left += weight
    axes.annotate(size(left), (left, row), (4, 0), textcoords="offset points", va="center")


def perplexity_ratios(qualities: Sequence[Quality]) -> Markup:
    """A forest plot: one row for each executor."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        forest(axes, [(EXECUTORS[q.executor], q.ratio, verdict(q.ratio, more_is_better=False)) for q in qualities])
        axes.set_title("perplexity, artefact / parent: left of 1 is better")

    return drawn("quality", "Perplexity ratio with 95 % interval, by executor", 0.75 + 0.25 * len(qualities), paint)


def speed_ratios(speeds: Sequence[Speed]) -> Markup:
    """A forest plot: one row for each speed; rates above and seconds below, for their better sides differ."""
    titles = {
        "tokens/s": "tokens/s, artefact / parent: right of 1 is faster",
        "s": "seconds, artefact / parent: left of 1 is faster",
    }
    kinds = {unit: [speed for speed in speeds if speed.unit == unit] for unit in titles}
    shown = {unit: kind for unit, kind in kinds.items() if kind}
    heights = [0.35 + 0.25 * len(kind) for kind in shown.values()]

    def paint(figure: Figure) -> None:
        panels = figure.subplots(len(shown), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (unit, kind) in zip(panels, shown.items(), strict=True):
            forest(axes, [(speed_subject(speed), speed.ratio, speed_verdict(speed)) for speed in kind])
            axes.set_title(titles[unit])

    return drawn("speed", "Speed ratios with 95 % intervals", 0.35 + sum(heights), paint)


def influence(step: int, values: Sequence[float], dropped: Iterable[int]) -> Markup:
    """Block Influence of each layer; those that went are marked."""
    gone = set(dropped)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.bar(range(len(values)), values, color=[WORSE if n in gone else SAME for n in range(len(values))])
        for index in sorted(gone):
            axes.annotate("x", (index, values[index]), (0, 1), textcoords="offset points", ha="center", color=WORSE)
        axes.set_xlabel("layer (x: dropped)")
        axes.set_ylabel("Block Influence")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return drawn(f"influence-{step}", "Block Influence of each layer", 2.1, paint)


def curve(name: str, title: str, values: Sequence[float]) -> Markup:
    """What was measured again and again, such as a training's loss; `name` tells it from other plots of the page."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(range(1, len(values) + 1), values, color=ACCENT, linewidth=1.4)
        axes.set_xlabel("number of the measurement")
        axes.set_ylabel(title)
        axes.grid(axis="y", linewidth=0.5)

    return drawn(name, title, 2.1, paint)


def learning(name: str, learnt: Mapping[str, Sequence[float]]) -> Markup:
    """A training's loss by step, and how long it took."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        steps, seconds = learnt["step"], learnt["seconds"]
        axes.plot(steps, learnt["loss"], color=ACCENT, linewidth=1.4, marker="o" if len(steps) < 3 else "")
        axes.set_xlabel("step")
        axes.set_ylabel("loss, nats per token")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", linewidth=0.5)
        axes.set_title(f"{duration(seconds[-1])} of training")

    return drawn(name, "Loss of each training step", 2.1, paint)
