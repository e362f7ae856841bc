"""What a source says is kept small, whole shard by shard, and never asked twice."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from compress import teacher
from compress.scores import Scores
from compress.steps import Tell
from compress.teacher import ROWS, Lot
from tests.compress.lessons import asking, teach_by, unheard
from tests.compress.tiny_models import VOCABULARY, llama, logits, some_text

TEXT = some_text(blocks=2 * ROWS + 3)


def test_what_is_kept_is_what_the_model_says(tmp_path: Path) -> None:
    model, k = llama(), 5
    teach_by(model, tmp_path, teacher.missing(tmp_path, TEXT), k)
    said = logits(model, TEXT)[:, :-1].log_softmax(dim=-1)
    for block in range(len(TEXT.rows)):
        lesson = teacher.lesson(tmp_path, block)
        assert tuple(lesson.tokens.tolist()) == TEXT.rows[block]
        top = said[block].topk(k)
        torch.testing.assert_close(lesson.logprobs[:, :k], top.values, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(said[block].gather(1, lesson.ids), top.values)
        torch.testing.assert_close(lesson.logprobs.exp().sum(dim=-1), torch.ones(31), atol=2e-3, rtol=2e-3)


def test_a_place_takes_four_bytes_for_each_token_told_and_two_for_the_rest(tmp_path: Path) -> None:
    teach_by(llama(), tmp_path, teacher.missing(tmp_path, TEXT)[:1], 32)
    places = ROWS * 31
    size = (tmp_path / "shard-00000.safetensors").stat().st_size
    assert size < places * (32 * 4 + 2) + ROWS * 32 * 2 + 500


def test_large_vocabularies_keep_their_ids(tmp_path: Path) -> None:
    large = 2**17

    def ask(rows: teacher.Rows) -> Scores:
        said = asking(llama(), 3)(tuple(tuple(token % VOCABULARY for token in row) for row in rows))
        return Scores(nats=said.nats, likeliest=said.likeliest + large, logprobs=said.logprobs)

    teacher.keep(tmp_path, Lot(number=0, rows=((large, large + 1, large + 2),)), ask)
    assert teacher.lesson(tmp_path, 0).tokens.tolist() == [large, large + 1, large + 2]
    assert (teacher.lesson(tmp_path, 0).ids >= large).all()


def test_after_a_kill_only_the_shards_that_are_not_whole_are_asked_for(tmp_path: Path) -> None:
    model, asked, place = llama(), list[int](), tmp_path / "said"

    class Killed(Exception):
        """The engine's end."""

    def killed(checkpoint: Path, place: Path, lots: list[Lot], top_k: int, tell: Tell) -> None:
        teach_by(model, place, lots[:1], top_k)
        (place / ".shard-00001.safetensors.partial").write_bytes(b"half of")
        raise Killed

    def counted(checkpoint: Path, place: Path, lots: list[Lot], top_k: int, tell: Tell) -> None:
        asked.extend(lot.number for lot in lots)
        teach_by(model, place, lots, top_k)

    with pytest.raises(Killed):
        teacher.teach(tmp_path, TEXT, 4, place, killed, unheard)
    assert teacher.teach(tmp_path, TEXT, 4, place, counted, unheard) == place
    assert asked == [1, 2]
    teacher.teach(tmp_path, TEXT, 4, place, counted, unheard)
    assert asked == [1, 2]
    assert teacher.seconds(place) > 0
    with safe_open(place / "shard-00002.safetensors", framework="numpy") as last:
        assert last.get_slice("tokens").get_shape() == [3, 32]


def test_other_texts_sources_and_counts_are_kept_elsewhere() -> None:
    names = [
        teacher.name("a", TEXT, 4),
        teacher.name("b", TEXT, 4),
        teacher.name("a", some_text(seed=1), 4),
        teacher.name("a", TEXT, 5),
    ]
    assert len(set(names)) == len(names)
