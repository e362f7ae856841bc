"""The cache is cut into blocks as vLLM cuts it: nothing is lost, windows stay small, devices share."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.kv_cache import Cut, NotAllocated, bytes_per_token, pool
from cluster.model import Attention, Model
from tests.cluster.published import NAMES, published
from tests.cluster.shapes import LATENT, STATE, dense, models

GIB = 2**30
CPU = Cut(block_tokens=128, kernel_tokens=32, state_bits=32, in_flight_tokens=2048)

CUTS = st.builds(
    Cut,
    tensor_parallel=st.sampled_from((1, 2, 4, 8)),
    block_tokens=st.sampled_from((16, 32, 64, 128)),
    kv_bits=st.sampled_from((None, 8)),
    in_flight_tokens=st.integers(0, 20_000),
    keeps_prefixes=st.booleans(),
)
EVERY = st.one_of(models(), st.sampled_from(NAMES).map(lambda name: published(name).model))


def test_llama_8b_keeps_128_kib_for_each_token() -> None:
    assert bytes_per_token(dense()) == 2 * 32 * 8 * 128 * 2
    assert pool(dense(), Cut()).bytes_of_sequence(1000) == 63 * 16 * 131_072
    assert pool(dense(), Cut()).max_concurrency(16 * GIB, 8192) == 16.0


@pytest.mark.parametrize(
    ("name", "kv_bytes", "context_tokens", "said"),
    [
        # What engines said at their start on a CPU, layers cut to 4 and 6: "Maximum concurrency for 4,096 tokens".
        ("qwen3-1.7b", GIB, 4096, 16.0),
        ("gemma-3-4b", GIB, 4096, 10.395939086294415),
    ],
)
def test_engines_said_the_same(name: str, kv_bytes: int, context_tokens: int, said: float) -> None:
    whole = published(name).model
    model = replace(whole, mixers=whole.mixers[: 4 if name.startswith("qwen") else 6])
    made = pool(model, replace(CPU, in_flight_tokens=4096))
    assert made.max_concurrency(kv_bytes, context_tokens) == said


def test_a_kv_head_is_the_least_that_a_device_holds() -> None:
    model = dense(kv_heads=2)
    assert [bytes_per_token(model, tensor_parallel=devices) for devices in (1, 2, 4, 8)] == [32768, 16384, 16384, 16384]


def test_a_latent_is_whole_on_every_device() -> None:
    model = published("deepseek-v3").model
    assert bytes_per_token(model) == bytes_per_token(model, tensor_parallel=8) == 61 * 576 * 2


def test_an_eight_bit_cache_holds_twice_as_much() -> None:
    full, half = (pool(dense(), Cut(kv_bits=bits)).max_concurrency(GIB, 4096) for bits in (16, 8))
    assert half == 2 * full


def test_a_window_takes_no_more_than_itself_and_what_is_in_flight() -> None:
    model = published("mistral-7b-v0.1").model
    within, beyond = (pool(model, Cut(in_flight_tokens=2048)).bytes_of_sequence(tokens) for tokens in (8_192, 32_768))
    assert within == beyond == (-(-(4095 + 2048) // 16) + 1) * 16 * bytes_per_token(model)


def test_gpt_oss_has_a_table_for_full_layers_and_one_for_windows() -> None:
    model = published("gpt-oss-20b").model
    made = pool(model, Cut(in_flight_tokens=0))
    assert [page.window_tokens for page in made.groups] == [128, None]
    assert made.block_bytes == 12 * 16 * 2 * 8 * 64 * 2
    assert made.blocks_of_sequence(1600) == 100 + (8 + 1)


def test_gemma_3_has_six_tables_of_which_some_are_padded() -> None:
    made = pool(published("gemma-3-27b").model, Cut())
    # 52 layers with windows and 10 without: groups of 10, the last of them not full.
    assert [page.window_tokens for page in made.groups].count(1024) == 6
    assert [page.window_tokens for page in made.groups].count(None) == 1


def test_chunks_are_kept_as_long_as_they_last() -> None:
    made = pool(published("llama-4-scout").model, Cut(in_flight_tokens=0))
    assert made.blocks_of_sequence(100_000) == 6250 + 3 * 512


def test_a_state_makes_attentions_blocks_longer_and_takes_two() -> None:
    model = published("nemotron-h-8b").model
    made = pool(model, CPU)
    full = next(page for page in made.groups if page.tokens is not None)
    assert full.tokens == 1152
    assert made.blocks_of_sequence(8192) == 8 + 6 * 2
    assert pool(model, replace(CPU, keeps_prefixes=False)).blocks_of_sequence(8192) == 8 + 6


def test_states_alone_are_one_block_however_long_the_context() -> None:
    made = pool(published("mamba-codestral-7b").model, Cut())
    assert made.blocks_of_sequence(1) == made.blocks_of_sequence(1_000_000) == 1
    assert made.block_bytes == 64 * (3 * 10240 * 2 + 128 * 64 * 128 * 2)


def test_heads_that_share_groups_have_them_on_every_device() -> None:
    model = published("granite-4.0-h-small").model
    alone = replace(model, mixers=tuple(mixer for mixer in model.mixers if not isinstance(mixer, Attention)))
    halved = pool(alone, Cut(tensor_parallel=2)).block_bytes
    assert halved - pool(alone, Cut()).block_bytes // 2 == 36 * 3 * 128 * 2


def test_what_vllm_does_not_allocate_is_said() -> None:
    with pytest.raises(NotAllocated, match="has no layer that looks back"):
        pool(replace(dense(), mixers=()), Cut())
    window = Attention(heads=8, kv_heads=1, head_dim=128, value_dim=128, window_tokens=64)
    with pytest.raises(NotAllocated, match="a block of latent attention"):
        pool(replace(dense(), mixers=(replace(window, kv_heads=7), LATENT)), Cut())


@given(EVERY, CUTS, st.integers(1, 100_000))
def test_a_longer_context_never_takes_less(model: Model, cut: Cut, tokens: int) -> None:
    made = pool(model, cut)
    assert 0 < made.blocks_of_sequence(tokens) <= made.blocks_of_sequence(tokens + 1)


@given(EVERY, CUTS, st.integers(1, 100_000))
def test_blocks_hold_every_token_that_is_looked_at(model: Model, cut: Cut, tokens: int) -> None:
    made = pool(model, cut)
    for page in made.groups:
        if page.tokens is not None:
            looked_at = min(tokens, page.window_tokens or tokens)
            assert page.blocks(tokens, cut.in_flight_tokens) * page.tokens >= looked_at


@given(EVERY, CUTS)
def test_more_devices_never_hold_more_each(model: Model, cut: Cut) -> None:
    one, each = (
        bytes_per_token(model, tensor_parallel=devices, kv_bits=cut.kv_bits) for devices in (1, cut.tensor_parallel)
    )
    assert one / cut.tensor_parallel <= each <= one


@given(EVERY, CUTS, st.integers(1, 50_000), st.integers(0, 2**40))
def test_what_fits_is_no_more_than_there_is(model: Model, cut: Cut, tokens: int, kv_bytes: int) -> None:
    made = pool(model, cut)
    count = made.max_concurrency(kv_bytes, tokens)
    assert int(count) * made.blocks_of_sequence(tokens) * made.block_bytes <= kv_bytes
    assert made.max_concurrency(kv_bytes + made.block_bytes, tokens) > count


@given(models(), st.integers(1, 8), st.integers(16, 4096), CUTS)
def test_layers_of_two_kinds_waste_less_than_a_group(model: Model, windowed: int, window: int, cut: Cut) -> None:
    """Padding: every layer's tokens fit into the blocks of its group, and at most one group a kind isn't full."""
    (look, *_) = model.mixers
    assert isinstance(look, Attention)
    full = replace(look, window_tokens=None)
    mixed = replace(model, mixers=(full,) * 4 + (replace(look, window_tokens=window),) * windowed)
    made = pool(mixed, cut)
    tokens = {page.tokens for page in made.groups}
    assert len(tokens) == 1
    (block,) = tokens
    assert block is not None
    each = bytes_per_token(mixed, tensor_parallel=cut.tensor_parallel, kv_bits=cut.kv_bits) // (4 + windowed)
    layers_held = made.block_bytes // (each * block) * len(made.groups)
    assert 4 + windowed <= layers_held < 4 + windowed + 2 * max(4, windowed)


@given(st.integers(1, 60), st.integers(1, 60), CUTS)
def test_hybrids_have_blocks_that_hold_a_state(attention: int, states: int, cut: Cut) -> None:
    model = replace(dense(), mixers=dense().mixers[:1] * attention + (STATE,) * states)
    made = pool(model, cut)
    assert len({page.bytes for page in made.groups}) == 1
    assert made.groups[0].bytes >= STATE.bytes // cut.tensor_parallel
