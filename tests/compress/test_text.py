"""Which text calibrates and which judges: never the same, and always the same blocks."""

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.recipe import Slice
from compress.text import GATE_BLOCKS, GATE_TOKENS, TOPICS, TextTooShort, blocks, documents, gate, part_documents

LETTERS: Any = SimpleNamespace(encode=lambda text, add_special_tokens, verbose: list(text.encode()))
"""A token for each byte."""


def file(text: str) -> str:
    path = Path(tempfile.mkdtemp()) / "text"
    path.write_text(text)
    return str(path)


def words(count: int) -> str:
    return "\n\n".join(f"Document {number} says {number * number}." for number in range(count))


@given(st.lists(st.text(alphabet="ab \n", max_size=6), max_size=30))
def test_calibration_and_evaluation_never_share_a_document(parts: list[str]) -> None:
    text = file("\n\n".join(parts))
    one, other = ({found.strip("\n") for found in part_documents(text, part)} for part in ("calibration", "evaluation"))
    assert not one & other
    assert one | other == {found.strip("\n") for found in documents(text)}


@given(st.lists(st.text(alphabet="abc\n", min_size=1, max_size=9), max_size=20))
def test_no_document_is_lost_whatever_empty_lines_part_them(parts: list[str]) -> None:
    text = "\n\n".join(parts)
    assert "".join("".join(documents(file(text))).split()) == "".join(text.split())


def test_the_two_parts_of_pythons_topics_are_both_large() -> None:
    sizes = [sum(map(len, part_documents(TOPICS, part))) for part in ("calibration", "evaluation")]
    assert min(sizes) > 100_000


@given(st.integers(1, 5), st.integers(8, 64))
def test_blocks_have_the_size_asked_for_and_run_on_from_one_to_the_next(count: int, tokens: int) -> None:
    found = blocks(LETTERS, Slice(blocks=count, tokens=tokens), "calibration")
    assert [len(row) for row in found.rows] == [tokens] * count
    whole = "".join(part_documents(TOPICS, "calibration")).encode()
    assert b"".join(map(bytes, found.rows)) == whole[: count * tokens]


def test_a_text_that_is_too_short_says_how_many_blocks_it_fills() -> None:
    text = file(words(40))
    size = sum(len(document) for document in part_documents(text, "calibration"))
    fitting = size // 50
    with pytest.raises(TextTooShort, match=rf"fills {fitting} blocks of 50 tokens for calibration, {fitting + 1} are"):
        blocks(LETTERS, Slice(text=text, blocks=fitting + 1, tokens=50), "calibration")
    assert len(blocks(LETTERS, Slice(text=text, blocks=fitting, tokens=50), "calibration").rows) == fitting


def test_the_same_text_has_the_same_hash_and_any_other_token_another() -> None:
    wanted = Slice(blocks=2, tokens=16)
    one, again = (blocks(LETTERS, wanted, "evaluation") for _ in range(2))
    assert one.hash == again.hash
    others = [
        blocks(LETTERS, wanted, "calibration"),
        blocks(LETTERS, Slice(blocks=2, tokens=17), "evaluation"),
        blocks(LETTERS, Slice(blocks=4, tokens=8), "evaluation"),
    ]
    assert len({one.hash, *(other.hash for other in others)}) == 4


def test_the_order_of_a_files_documents_does_not_matter() -> None:
    wanted = {"blocks": 2, "tokens": 32}
    text = words(30)
    backwards = "\n\n".join(reversed(text.split("\n\n")))
    one, other = (blocks(LETTERS, Slice(text=file(each), **wanted), "calibration") for each in (text, backwards))
    assert one.hash == other.hash


def test_the_gate_hears_a_little_of_the_evaluations_text() -> None:
    found = gate(LETTERS, Slice(blocks=8, tokens=512))
    assert [len(row) for row in found.rows] == [GATE_TOKENS] * GATE_BLOCKS
    assert [len(row) for row in gate(LETTERS, Slice(blocks=1, tokens=32)).rows] == [32] * GATE_BLOCKS
    assert found.rows[0] == blocks(LETTERS, Slice(blocks=1), "evaluation").rows[0][:GATE_TOKENS]
