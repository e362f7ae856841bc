"""Are the items made from a text fair: one truth, three other ways that are near it, the same for every model?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.continuation import CHOICES, Continuation, items
from compress.text import TextTooShort

WORDS = st.lists(st.sampled_from(["a", "few", "words", "that", "come", "again", "\n\n", "  §", "2"]), max_size=200)


def numbered(count: int, name: str) -> str:
    """A text whose words all differ."""
    return " ".join(f"{name}{number}" for number in range(count))


@given(st.lists(WORDS, min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 3))
def test_every_item_holds_the_truth_once_among_ways_that_differ(texts: list[list[str]], count: int, seed: int):
    task = Continuation(documents=tuple(" ".join(words) for words in texts), items=count, seed=seed)
    try:
        found = items(task)
    except TextTooShort:
        return
    assert 1 <= len(found) <= count
    assert found == items(task)
    for item in found:
        assert len({tuple(choice.split()) for choice in item["choices"]}) == CHOICES
        truth = item["beginning"] + item["choices"][item["answer"]]
        assert any(truth in document for document in task.documents)


def test_wrong_ways_come_from_the_same_document_where_it_has_them():
    task = Continuation(documents=tuple(numbered(32 * 8, name) for name in ("left", "right")), items=16)
    for item in items(task):
        name = "left" if "left" in item["beginning"] else "right"
        assert all(name in choice for choice in item["choices"])


def test_another_seed_asks_other_items():
    first, second = (items(Continuation(documents=(numbered(9000, "w"),), items=20, seed=seed)) for seed in (0, 1))
    assert [item["beginning"] for item in first] != [item["beginning"] for item in second]


def test_a_text_without_four_passages_is_refused():
    with pytest.raises(TextTooShort, match="holds 3 passages of 32 words for evaluation, 4 that differ are needed"):
        items(Continuation(documents=(numbered(100, "word"),)))
