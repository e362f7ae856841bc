"""References: what is written is read, what can't be right is refused in one line."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments import reference
from deployments.reference import BadReference, Prompt, Reference, Vector, Vectors


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
    assert reference.load_vectors(tmp_path) is None


def test_one_checkpoint_may_have_a_reference_of_each_kind(tmp_path: Path):
    written = Reference(made_by="me", prompts=(Prompt(token_ids=(1, 2), logprobs=(-1.0,)),))
    pooled = Vectors(made_by="me", task="embed", vectors=(Vector(token_ids=(1,), values=(0.6, -0.8)),))
    reference.save(written, tmp_path)
    reference.save(pooled, tmp_path)
    assert (reference.load(tmp_path), reference.load_vectors(tmp_path)) == (written, pooled)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"made_by": "me", "task": "embed", "vectors": []}', "vectors: Tuple should have at least 1 item"),
        (
            '{"made_by": "me", "task": "guess", "vectors": [{"token_ids": [1], "values": [1]}]}',
            "task: Input should be 'embed' or 'classify'",
        ),
        (
            '{"made_by": "me", "task": "embed", "vectors": [{"token_ids": [], "values": [1]}]}',
            "vectors.0.token_ids: Tuple should have at least 1 item",
        ),
        (
            '{"made_by": "me", "task": "embed", "vectors": [{"token_ids": [1], "values": [Infinity]}]}',
            "vectors.0.values.0: Input should be a finite number",
        ),
    ],
)
def test_vectors_that_cannot_be_right_are_refused_in_one_line(tmp_path: Path, text: str, complaint: str):
    (tmp_path / reference.VECTORS_FILE).write_text(text)
    with pytest.raises(BadReference) as refusal:
        reference.load_vectors(tmp_path)
    assert str(refusal.value).startswith(f"{tmp_path / reference.VECTORS_FILE}: {complaint}")
    assert "\n" not in str(refusal.value)


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
