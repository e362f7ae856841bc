"""Fewer neurons and heads: which ones stay, what the others take over, and where it can't be done."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    StableLmConfig,
    StableLmForCausalLM,
)

from compress import width
from compress.forecast import ffn_width
from compress.layers import Unsupported, walk
from compress.recipe import NarrowAttention, NarrowFfn
from tests.compress.tiny_models import VOCABULARY, llama, logits, some_text, unheard

TEXT = some_text()
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}

HEADS = {"num_attention_heads": 8, "num_key_value_heads": 4}


def seeded(kind: type, config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config).requires_grad_(False).eval()
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(0.1 * torch.randn(weight.shape))  # biases begin as zeros
        return model


def other_llama(**fields: Any) -> Any:
    return seeded(LlamaForCausalLM, LlamaConfig(**(SIZES | fields)))


def read_again(model: Any, folder: Path) -> Any:
    model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def narrow(**fields: Any) -> NarrowFfn:
    return NarrowFfn.model_validate({"do": "narrow_ffn", "share": 0.5, "multiple": 1} | fields)


@given(st.floats(0.05, 0.95), st.sampled_from([1, 8, 16, 32]))
@settings(max_examples=8)
def test_the_width_that_is_left_divides_by_the_multiple_in_every_map(share: float, multiple: int) -> None:
    model = llama(layers=1)
    step = narrow(share=share, multiple=multiple)
    assume(0 < ffn_width(128, step) < 128)
    before, after = width.narrow_ffn(model, step, TEXT, 0, unheard)["neurons"]
    assert before == 128
    assert after % multiple == 0
    assert abs(after - before * (1 - share)) <= multiple / 2
    mlp: Any = model.model.layers[0].mlp
    assert mlp.gate_proj.weight.shape == mlp.up_proj.weight.shape == (after, 64)
    assert mlp.down_proj.weight.shape == (64, after)
    assert model.config.intermediate_size == mlp.gate_proj.out_features == mlp.down_proj.in_features == after


@pytest.mark.parametrize("by", ["activation", "magnitude", "random"])
@pytest.mark.parametrize("repair", [True, False])
def test_neurons_that_are_always_silent_break_nothing(by: str, repair: bool, tmp_path: Path) -> None:
    model = llama(layers=2)
    for layer in model.model.layers:
        layer.mlp.up_proj.weight[32:] = 0
    before = logits(model, TEXT)
    width.narrow_ffn(model, narrow(share=0.25, by=by, repair=repair), TEXT, 0, unheard)
    after = logits(model, TEXT)
    assert after.isfinite().all()
    assert torch.equal(logits(read_again(model, tmp_path), TEXT), after)
    if by == "activation":
        assert (after - before).abs().mean() < 0.02 * before.std()


def test_a_network_that_says_nothing_at_all_can_be_narrowed() -> None:
    model = llama(layers=2)
    model.model.layers[0].mlp.up_proj.weight.zero_()
    width.narrow_ffn(model, narrow(), TEXT, 0, unheard)
    assert logits(model, TEXT).isfinite().all()


def test_less_text_than_neurons_is_enough() -> None:
    model, little = llama(layers=2), some_text(blocks=1, tokens=16)
    width.narrow_ffn(model, narrow(share=0.25), little, 0, unheard)
    assert logits(model, TEXT).isfinite().all()


def test_the_fit_is_the_least_squares_solution() -> None:
    model = llama(layers=1)
    first = next(walk(model, TEXT, unheard))
    down: Any = first.layer.mlp.down_proj
    inputs: list[torch.Tensor] = []
    hook = down.register_forward_pre_hook(lambda _, given: inputs.append(given[0].flatten(0, -2)))
    first.outputs()
    hook.remove()
    rows, whole = torch.cat(inputs).double(), down.weight.double().clone()
    kept = torch.arange(0, 128, 2)
    width._keep_inputs(down, kept, rows.T @ rows)
    best = torch.linalg.lstsq(rows[:, kept], rows @ whole.T).solution
    errors = [(rows[:, kept] @ fitted - rows @ whole.T).square().mean() for fitted in (down.weight.double().T, best)]
    cut = (rows[:, kept] @ whole[:, kept].T - rows @ whole.T).square().mean()
    assert errors[1] <= errors[0] <= errors[1] * 1.05
    assert errors[0] < 0.9 * cut


@pytest.mark.parametrize("repair", [True, False])
def test_biases_and_wide_heads_go_along(repair: bool, tmp_path: Path) -> None:
    model = other_llama(attention_bias=True, mlp_bias=True, head_dim=32, **HEADS)
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight[:, 64:192] = 0  # the groups in the middle say nothing
    before = logits(model, TEXT)
    step = NarrowAttention(do="narrow_attention", kv_heads=2, repair=repair)
    assert width.narrow_attention(model, step, TEXT, unheard) == {"kv_heads": [4, 2], "heads": [8, 4]}
    after = logits(model, TEXT)
    assert (after - before).abs().mean() < (0.02 if repair else 1e-5) * before.std()
    width.narrow_ffn(model, narrow(repair=repair), TEXT, 0, unheard)
    assert torch.equal(logits(read_again(model, tmp_path), TEXT), logits(model, TEXT))
    assert model.model.layers[0].self_attn.q_proj.bias.shape == (128,)
    assert model.model.layers[0].self_attn.k_proj.bias.shape == (64,)
    assert model.model.layers[0].self_attn.o_proj.bias.shape == (64,)


def test_a_count_of_heads_that_transformers_would_not_read_is_refused_before_any_work() -> None:
    model = other_llama(**HEADS)
    with pytest.raises(
        Unsupported, match=r"kv_heads that leave 6 heads are not allowed: The hidden size \(64\) is not"
    ):
        width.narrow_attention(model, NarrowAttention(do="narrow_attention", kv_heads=1), TEXT, unheard)
    assert model.config.num_attention_heads == 8


def test_heads_without_groups_go_one_by_one(tmp_path: Path) -> None:
    model = other_llama(num_key_value_heads=4)
    step = NarrowAttention(do="narrow_attention", kv_heads=3)
    assert width.narrow_attention(model, step, TEXT, unheard) == {"kv_heads": [4, 1], "heads": [4, 1]}
    assert torch.equal(logits(read_again(model, tmp_path), TEXT), logits(model, TEXT))


def test_the_fit_brings_attention_nearer_on_the_calibration_text() -> None:
    before = logits(llama(), TEXT)
    errors: list[float] = []
    for repair in (True, False):
        model = llama()
        width.narrow_attention(model, NarrowAttention(do="narrow_attention", kv_heads=1, repair=repair), TEXT, unheard)
        errors.append((logits(model, TEXT) - before).square().mean().item())
    assert errors[0] < errors[1]


def test_a_model_keeps_its_dtype() -> None:
    model = llama().bfloat16()
    width.narrow_ffn(model, narrow(), TEXT, 0, unheard)
    width.narrow_attention(model, NarrowAttention(do="narrow_attention", kv_heads=1), TEXT, unheard)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("kind", "config", "what"),
    [
        (Olmo2ForCausalLM, Olmo2Config, r"q_norm\.weight would be \[32\] with fewer heads, not \[64\]"),
        (StableLmForCausalLM, StableLmConfig, r"q_proj\.weight would be \[64, 64\] with fewer heads, not \[32, 64\]"),
    ],
)
def test_an_architecture_that_cannot_have_fewer_heads_is_refused_before_it_is_changed(
    kind: type, config: type, what: str
) -> None:
    model = seeded(kind, config(**SIZES))
    before = logits(model, TEXT)
    with pytest.raises(Unsupported, match=f"narrow_attention does not know this architecture: {kind.__name__}.*{what}"):
        width.narrow_attention(model, NarrowAttention(do="narrow_attention", kv_heads=1), TEXT, unheard)
    assert torch.equal(logits(model, TEXT), before)
    assert model.config.num_attention_heads == 4


@pytest.mark.parametrize("kv_heads", [2, 3])
def test_all_heads_at_once_are_refused(kv_heads: int) -> None:
    with pytest.raises(Unsupported, match=f"kv_heads must be below the model's 2, got {kv_heads}"):
        width.narrow_attention(llama(), NarrowAttention(do="narrow_attention", kv_heads=kv_heads), TEXT, unheard)


@pytest.mark.parametrize("fields", [{"share": 0.9, "multiple": 64}, {"share": 0.01, "multiple": 32}])
def test_a_width_that_no_multiple_reaches_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Unsupported, match=r"128 neurons less a share of 0\.\d+ are \d+ in multiples of \d+: choose"):
        width.narrow_ffn(llama(), narrow(**fields), TEXT, 0, unheard)


def test_a_random_choice_follows_the_seed() -> None:
    chosen = []
    for seed in (0, 0, 1):
        model = llama()
        width.narrow_ffn(model, narrow(by="random", repair=False), TEXT, seed, unheard)
        chosen.append(logits(model, TEXT))
    assert torch.equal(chosen[0], chosen[1])
    assert not torch.equal(chosen[0], chosen[2])
