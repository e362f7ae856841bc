"""Are the prompts of a benchmark of one length, all different, and the same for the same seed?"""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.prompts import text_of_length


def length(text: str) -> int:
    """A tokenizer with a template of 4 tokens and one token for every three letters of a word."""
    return 4 + sum(-(-len(word) // 3) for word in text.split())


@given(tokens=st.integers(5, 200), seed=st.integers())
def test_a_text_has_the_length_that_was_asked_for(tokens: int, seed: int) -> None:
    assert length(text_of_length(length, tokens, random.Random(seed))) == tokens


def test_texts_differ_and_come_again_from_the_same_seed() -> None:
    texts = [[text_of_length(length, 128, draw) for _ in range(50)] for draw in map(random.Random, (1, 1, 2))]
    assert texts[0] == texts[1]
    assert len({*texts[0], *texts[2]}) == 100


def test_a_template_that_is_longer_than_the_prompt_is_named() -> None:
    with pytest.raises(ValueError, match="has 4 tokens, more than 3"):
        text_of_length(length, 3, random.Random(0))
