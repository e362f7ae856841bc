"""References: what is written is read, what can't be right is refused in one line."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments import reference
from deployments.reference import BadReference, Prompt, Reference


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    token_ids = draw(st.lists(st.integers(0, 200_000), min_size=2, max_size=20))
    count = len(token_ids) - 1
    logprobs = draw(st.lists(st.floats(-100, 0), min_size=count, max_size=count))
    return Prompt(token_ids=tuple(token_ids), logprobs=tuple(logprobs))


@given(made_by=st.text(), several=st.lists(prompts(), min_size=1, max_size=4))
def test_what_is_saved_is_loaded_to_the_last_bit(made_by: str, several: list[Prompt]):
    saved = Reference(made_by=made_by, prompts=tuple(several))
    with TemporaryDirectory() as folder:
        reference.save(saved, Path(folder))
        assert reference.load(Path(folder)) == saved
        assert [path.name for path in Path(folder).iterdir()] == [reference.FILE]


def test_a_checkpoint_without_a_reference_has_none(tmp_path: Path):
    assert reference.load(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"made_by": "me", "prompts": []}', "prompts: Tuple should have at least 1 item"),
        (
            '{"made_by": "me", "prompts": [{"token_ids": [1, 2, 3], "logprobs": [-1.0]}]}',
            "prompts.0: Value error, 1 logprobs for 3 token_ids; one fewer is right",
        ),
        (
            '{"made_by": "me", "prompts": [{"token_ids": [1, 2], "logprobs": [NaN]}]}',
            "prompts.0.logprobs.0: Input should be a finite number",
        ),
        (
            '{"made_by": "me", "prompts": [{"token_ids": [1, 2], "logprobs": [-1]}], "model": "x"}',
            "model: Extra inputs are not permitted",
        ),
        ('{"made_by": "me"', "the file: Invalid JSON"),
    ],
)
def test_a_reference_that_cannot_be_right_is_refused_in_one_line(tmp_path: Path, text: str, complaint: str):
    (tmp_path / reference.FILE).write_text(text)
    with pytest.raises(BadReference) as refusal:
        reference.load(tmp_path)
    assert str(tmp_path / reference.FILE) in str(refusal.value)
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)
