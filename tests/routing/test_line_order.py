"""Do the lines of a batch stand beside those that they share a beginning with, the longest first?"""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from routing import body_keys, line_order

Prompts = list[tuple[tuple[int, ...], int]]


def chains(texts: Sequence[bytes], block_bytes: int = 2) -> Prompts:
    """As a batch has them: the keys of whole blocks, then that of the rest."""
    told = [(body_keys(text, "tenant", block_bytes), len(text)) for text in texts]
    return [((*blocks, key), length) for (key, blocks), length in told]


TEXTS = st.lists(st.text("ab", max_size=9).map(str.encode), max_size=12)


@given(TEXTS)
def test_each_line_is_there_once(texts: list[bytes]) -> None:
    assert sorted(line_order(chains(texts))) == list(range(len(texts)))


@given(TEXTS)
def test_those_that_share_a_beginning_follow_each_other(texts: list[bytes]) -> None:
    prompts = chains(texts)
    order = line_order(prompts)
    for key in {key for keys, _ in prompts for key in keys}:
        places = [place for place, index in enumerate(order) if key in prompts[index][0]]
        assert places == list(range(places[0], places[0] + len(places)))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=10))
def test_of_those_that_share_as_much_the_longest_come_first(lengths: list[int]) -> None:
    prompts = [((1, 2, 100 + place), length) for place, length in enumerate(lengths)]
    order = line_order([*prompts, ((1, 2), 0)])
    assert [lengths[index] for index in order if index < len(lengths)] == sorted(lengths, reverse=True)
