"""Other estimators' formulas give what their sources print, and the models that they are tried on are the real ones."""

from dataclasses import replace

import pytest

from benchmarks import peer_estimators as peers
from benchmarks.published_models import CONFIGS, INDEX_BYTES, published
from cluster.device_facts import find
from cluster.model import Attention, Model

GIB = 2**30


@pytest.fixture(scope="module")
def llama() -> Model:
    return published("Llama-3.1-8B")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_published_model_weighs_what_its_index_says(name: str) -> None:
    assert published(name).weight_bytes == INDEX_BYTES[name]


def test_substratus_own_examples_come_out() -> None:
    assert peers.substratus_bytes(70e9, 16) == pytest.approx(168e9)
    assert peers.substratus_bytes(70e9, 4) == pytest.approx(42e9)


def test_rules_for_the_whole_are_the_weights_or_a_fifth_more(llama: Model) -> None:
    assert peers.accelerate_weights_bytes(llama) == llama.weight_bytes
    assert peers.eleuther_bytes(llama) == pytest.approx(1.2 * llama.weight_bytes)


def test_only_formulas_that_know_shared_heads_get_the_cache_right(llama: Model) -> None:
    assert peers.llm_d_kv_bytes_per_token(llama) == 128 * 1024
    assert peers.kipply_kv_bytes_per_token(llama) == 4 * 128 * 1024
    shared = llama.mixers[0]
    assert isinstance(shared, Attention)
    unshared = replace(llama, mixers=(replace(shared, kv_heads=shared.heads),) * llama.layers)
    assert peers.kipply_kv_bytes_per_token(unshared) == peers.llm_d_kv_bytes_per_token(unshared)


def test_llm_d_leaves_for_the_cache_what_weights_and_two_constants_do_not_take(llama: Model) -> None:
    left = peers.llm_d_cache_bytes(llama, find("rtx-4090"), tensor=1, utilization=0.9)
    assert left / GIB == pytest.approx(24 * 0.9 - llama.weight_bytes / GIB - 1.89 - 0.27)
    assert peers.llm_d_cache_bytes(published("Qwen3-32B"), find("rtx-4090"), tensor=1, utilization=0.9) == 0


def test_what_is_left_of_the_share_that_vllm_asks_for_is_never_below_nothing() -> None:
    card = find("rtx-4090")
    assert peers.remaining_cache_bytes(1e9, card, tensor=2, utilization=0.5) == card.memory_bytes - 1e9
    assert peers.remaining_cache_bytes(1e12, card, tensor=2, utilization=0.5) == 0


def test_a_token_waits_for_the_weights_until_the_batch_is_large_enough_to_wait_for_arithmetic(llama: Model) -> None:
    card = find("h100")
    alone_s = peers.kipply_token_s(llama, card, batch=1, devices=1)
    assert alone_s == pytest.approx(llama.weight_bytes / card.bandwidth_bytes_per_s)
    assert peers.kipply_token_s(llama, card, batch=100, devices=1) == alone_s
    assert peers.kipply_token_s(llama, card, batch=1000, devices=1) > alone_s
    assert peers.kipply_token_s(llama, card, batch=1, devices=2) == pytest.approx(alone_s / 2)


def test_bandwidth_utilization_counts_the_cache_of_the_batch_too(llama: Model) -> None:
    card = find("h100")
    without_s = peers.databricks_token_s(llama, card, batch=0, context_tokens=0, devices=1)
    with_s = peers.databricks_token_s(llama, card, batch=100, context_tokens=1000, devices=1)
    assert without_s == pytest.approx(llama.weight_bytes / card.bandwidth_bytes_per_s)
    assert with_s - without_s == pytest.approx(100 * 1000 * 128 * 1024 / card.bandwidth_bytes_per_s)
