"""What a step does is counted from the shape and the batch alone."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.model import Attention, Model
from cluster.step_work import Chunk, head_weights, work
from tests.cluster.shapes import LATENT, STATE, dense, mixture, models

DECODE = Chunk(new_tokens=1, context_tokens=1_000)
chunks = st.builds(
    Chunk, new_tokens=st.integers(1, 4_096), context_tokens=st.integers(0, 8_192), count=st.integers(1, 64)
)


def seen_by_each(new: int, context: int, window: int | None) -> int:
    """How many tokens the new ones look at, one after the other."""
    longest = [context + index + 1 for index in range(new)]
    return sum(length if window is None else min(length, window) for length in longest)


def test_a_decode_reads_all_weights_but_the_embedding_and_takes_two_operations_for_each() -> None:
    model = dense()
    done = work(model, [DECODE])
    embedding = model.parts["embedding"]
    assert done.weight_bytes == model.weight_bytes - embedding.bytes
    norms = model.parts["norms"].weights
    assert done.linear_flops + done.head_flops == 2 * (model.parameters - embedding.weights - norms)


def test_a_tied_embedding_is_read_as_the_head() -> None:
    model = dense(tied=True)
    assert work(model, [DECODE]).weight_bytes == model.weight_bytes
    assert head_weights(model) == model.vocabulary * model.hidden


def test_weights_are_read_as_they_were_loaded_and_not_as_they_lie_on_disk() -> None:
    model = dense()
    wide = {name: replace(part, bytes=2 * part.bytes, loaded_bytes=part.bytes) for name, part in model.parts.items()}
    assert work(replace(model, parts=wide), [DECODE]).weight_bytes == work(model, [DECODE]).weight_bytes


def test_the_cache_of_a_decode_is_what_lies_there_and_one_token_read_and_written() -> None:
    # 2 * 32 layers * 8 heads * 128 * 2 bytes = 128 KiB a token.
    assert work(dense(), [DECODE]).kv_bytes == (1_000 + 1 + 1) * 131_072


def test_attention_over_a_whole_prompt_is_half_of_the_square() -> None:
    done = work(dense(), [Chunk(new_tokens=1_000, context_tokens=0)])
    assert done.attention_flops == 2 * (1_000 * 1_001 / 2) * 32 * 32 * (128 + 128)


@given(st.integers(1, 300), st.integers(0, 300), st.none() | st.integers(1, 200))
def test_a_window_is_counted_token_by_token(new: int, context: int, window: int | None) -> None:
    mixer = Attention(heads=1, kv_heads=1, head_dim=1, value_dim=0, window_tokens=window)
    model = replace(dense(), mixers=(mixer,))
    done = work(model, [Chunk(new_tokens=new, context_tokens=context)])
    assert done.attention_flops == 2 * seen_by_each(new, context, window)


def test_one_token_reaches_its_own_experts_and_many_tokens_reach_all() -> None:
    model = mixture()
    experts = model.parts["experts"].bytes
    without = model.weight_bytes - experts - model.parts["embedding"].bytes
    assert work(model, [DECODE]).weight_bytes == without + experts / 4
    assert work(model, [replace(DECODE, count=2)]).weight_bytes == without + experts * (1 - 0.75**2)
    assert work(model, [replace(DECODE, count=256)]).weight_bytes == pytest.approx(without + experts)


def test_a_token_is_multiplied_with_its_active_weights_alone() -> None:
    model = mixture()
    embedding, norms = model.parts["embedding"].weights, model.parts["norms"].weights
    done = work(model, [DECODE])
    assert done.linear_flops + done.head_flops == 2 * (model.active_parameters - embedding - norms)


def test_a_latent_is_read_once_for_all_heads() -> None:
    model = replace(dense(), mixers=(LATENT,) * 61)
    assert work(model, [DECODE]).kv_bytes == 1_002 * 61 * (512 + 64) * 2


def test_a_state_costs_the_same_at_any_context() -> None:
    model = replace(dense(), mixers=(STATE,))
    near, far = (work(model, [replace(DECODE, context_tokens=tokens)]) for tokens in (10, 100_000))
    assert near == far
    assert near.kv_bytes == 2 * STATE.bytes


@given(models(), st.lists(chunks, min_size=1, max_size=3), chunks)
def test_more_in_a_step_is_never_less_work(model: Model, step: list[Chunk], more: Chunk) -> None:
    less, all_of_it = work(model, step), work(model, [*step, more])
    for name in ("tokens", "linear_flops", "head_flops", "attention_flops", "weight_bytes", "kv_bytes"):
        assert getattr(all_of_it, name) >= getattr(less, name) >= 0


@given(models(), chunks)
def test_sequences_that_are_alike_may_be_told_together(model: Model, chunk: Chunk) -> None:
    apart = [replace(chunk, count=1)] * int(chunk.count)
    together = work(model, [chunk])
    for name in ("tokens", "sequences", "linear_flops", "attention_flops", "kv_bytes"):
        assert getattr(work(model, apart), name) == pytest.approx(getattr(together, name))
