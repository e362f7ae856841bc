"""What a small model says of a text, kept as a teacher's, without an engine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from compress import teacher
from compress.scores import Scores, score
from compress.spread import Spread, train_here
from compress.steps import Tell, loaded
from compress.teacher import Lot
from compress.text import Blocks


def asking(model: Any, top_k: int) -> Callable[[teacher.Rows], Scores]:
    def ask(rows: teacher.Rows) -> Scores:
        said, _ = score(model, Blocks(rows=rows))
        return Scores(nats=said.nats, likeliest=said.likeliest[..., :top_k], logprobs=said.logprobs[..., :top_k])

    return ask


def teach(checkpoint: Path, place: Path, lots: list[Lot], top_k: int, tell: Tell) -> None:
    """As compress.teacher.Teach, by transformers."""
    model, _ = loaded(checkpoint)
    teach_by(model, place, lots, top_k)


def teach_by(model: Any, place: Path, lots: list[Lot], top_k: int) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for lot in lots:
        teacher.keep(place, lot, asking(model, top_k))


def unheard(doing: str, share: float | None) -> None:
    assert doing
    assert share is None or 0 <= share <= 1


BY_TRANSFORMERS = Spread(teach=teach, train=train_here)
