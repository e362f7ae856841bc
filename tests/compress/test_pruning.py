"""What pruning takes away, and that the rest computes what it should."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from compress import depth, mask, width
from compress.layers import Unsupported, walk
from compress.recipe import DropLayers, Mask, NarrowAttention, NarrowFfn
from tests.compress.tiny_models import llama, logits, some_text, unheard

TEXT = some_text()


def same_after_reload(model: LlamaForCausalLM, folder: Path) -> bool:
    model.save_pretrained(folder)
    again = LlamaForCausalLM.from_pretrained(folder).eval()
    return torch.allclose(logits(model, TEXT), logits(again, TEXT), atol=1e-5)


def test_a_walk_shows_each_layer_what_the_model_itself_would() -> None:
    model, heard = llama(), []
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, given, named: heard.append((given or [named["hidden_states"]])[0]), with_kwargs=True
        )
        for layer in model.model.layers
    ]
    logits(model, some_text(blocks=1))
    for hook in hooks:
        hook.remove()
    seen = [each.inputs[0] for each in walk(model, some_text(blocks=1), unheard)]
    for one, other in zip(seen, heard, strict=True):
        torch.testing.assert_close(one, other)


def test_a_gram_is_what_comes_into_a_map_times_itself() -> None:
    model = llama()
    rows: list[torch.Tensor] = []
    down = model.model.layers[0].mlp.down_proj
    hook = down.register_forward_pre_hook(lambda _, given: rows.append(given[0].flatten(0, -2)))
    first = next(walk(model, TEXT, unheard))
    rows.clear()
    gram = first.gram(down)
    hook.remove()
    inputs = torch.cat(rows).double()
    torch.testing.assert_close(gram, inputs.T @ inputs, rtol=1e-4, atol=1e-4)


def test_the_layer_that_changes_nothing_goes_first(tmp_path: Path) -> None:
    model = llama(layers=4)
    idle = model.model.layers[2]
    idle.self_attn.o_proj.weight.zero_()
    idle.mlp.down_proj.weight.zero_()
    before = logits(model, TEXT)
    found = depth.drop_layers(model, DropLayers(do="drop_layers", layers=1), TEXT, unheard)
    assert found["dropped"] == [2]
    assert found["block_influence"][2] == pytest.approx(0, abs=1e-5)
    torch.testing.assert_close(logits(model, TEXT), before)
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1, 2]
    assert same_after_reload(model, tmp_path)


def test_dropping_every_layer_is_refused() -> None:
    with pytest.raises(Unsupported, match="must be below the model's 3, got 3"):
        depth.drop_layers(llama(), DropLayers(do="drop_layers", layers=3), TEXT, unheard)


def narrowed(model: LlamaForCausalLM, *, repair: bool, multiple: int = 32) -> LlamaForCausalLM:
    step = NarrowFfn(do="narrow_ffn", share=0.5, repair=repair, multiple=multiple)
    width.narrow_ffn(model, step, TEXT, 0, unheard)
    return model


def test_what_a_neuron_repeats_quietly_is_taken_over_by_the_one_that_says_it(tmp_path: Path) -> None:
    model = llama()
    for layer in model.model.layers:
        layer.mlp.gate_proj.weight[64:] = layer.mlp.gate_proj.weight[:64]
        layer.mlp.up_proj.weight[64:] = 0.05 * layer.mlp.up_proj.weight[:64]
    before = logits(model, TEXT)
    narrowed(model, repair=True)
    assert model.config.intermediate_size == 64
    spread = before.std()
    assert (logits(model, TEXT) - before).abs().mean() < 0.02 * spread
    assert same_after_reload(model, tmp_path)


def test_the_fit_brings_the_output_nearer_on_the_calibration_text() -> None:
    before = logits(llama(), TEXT)
    repaired, bare = (logits(narrowed(llama(), repair=repair), TEXT) for repair in (True, False))
    assert (repaired - before).square().mean() < (bare - before).square().mean()


def test_key_value_heads_go_with_the_query_heads_that_read_them(tmp_path: Path) -> None:
    model = llama()
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight[:, :32] = 0  # the first key-value head's group says nothing
    before = logits(model, TEXT)
    step = NarrowAttention(do="narrow_attention", kv_heads=1)
    assert width.narrow_attention(model, step, TEXT, unheard) == {"kv_heads": [2, 1], "heads": [4, 2]}
    assert (logits(model, TEXT) - before).abs().mean() < 0.01 * before.std()
    assert model.config.head_dim == 16
    assert same_after_reload(model, tmp_path)


@given(st.floats(0.01, 0.99), st.integers(1, 12))
def test_a_ramp_rises_and_ends_at_its_target(target: float, rounds: int) -> None:
    shares = [mask.ramp(target, number, rounds) for number in range(1, rounds + 1)]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(target)


@given(st.integers(0, 1000), st.floats(0.05, 0.95))
def test_the_smallest_weights_go_and_exactly_as_many_as_asked(seed: int, sparsity: float) -> None:
    weight = torch.randn(8, 16, generator=torch.Generator().manual_seed(seed))
    stays = mask.largest(weight, sparsity, "unstructured")
    assert int((~stays).sum()) == round(sparsity * 128)
    if stays.any() and not stays.all():
        assert weight[stays].abs().min() >= weight[~stays].abs().max()


@given(st.integers(0, 1000))
def test_two_of_each_four_neighbours_stay(seed: int) -> None:
    weight = torch.randn(4, 16, generator=torch.Generator().manual_seed(seed))
    assert (mask.largest(weight, 0.5, "2:4").unflatten(1, (-1, 4)).sum(dim=2) == 2).all()


def test_training_between_rounds_keeps_zeros_zero_and_helps() -> None:
    plain, trained = llama().bfloat16(), llama().bfloat16()
    once = Mask(do="mask", by="magnitude", sparsity=0.5)
    rounds = Mask(do="mask", by="magnitude", sparsity=0.5, rounds=2, recovery_steps=20)
    mask.mask(plain, once, TEXT, 0, unheard)
    found = mask.mask(trained, rounds, TEXT, 0, unheard)
    assert found["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert trained.dtype == torch.bfloat16
    assert found["recovery_losses"][-1] < found["recovery_losses"][20]
    assert not any(parameter.requires_grad for parameter in trained.parameters())


@pytest.mark.parametrize("by", ["wanda", "sparsegpt"])
def test_the_library_s_masks_have_the_sparsity_asked_for(by: str) -> None:
    step = Mask.model_validate({"do": "mask", "by": by, "sparsity": 0.5})
    found = mask.mask(llama(), step, TEXT, 0, unheard)
    assert found["sparsity"] == pytest.approx(0.5, abs=0.01)
