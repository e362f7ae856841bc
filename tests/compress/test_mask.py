"""Zeros where they were asked for, and a model that is otherwise as it was."""

from typing import Any

import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from compress import mask
from compress.layers import Unsupported
from compress.recipe import Mask
from tests.compress.tiny_models import VOCABULARY, llama, logits, some_text, unheard

TEXT = some_text()


def half(**fields: Any) -> Mask:
    return Mask.model_validate({"do": "mask", "by": "magnitude"} | fields)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


@pytest.mark.parametrize("recovery_steps", [0, 2])
def test_what_is_in_float32_beside_the_weights_stays_so(recovery_steps: int) -> None:
    model: Any = llama()
    for weight in model.parameters():
        weight.data = weight.data.bfloat16()
    places = model.model.rotary_emb.inv_freq.clone()
    mask.mask(model, half(recovery_steps=recovery_steps), TEXT, 0, unheard)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.equal(model.model.rotary_emb.inv_freq, places)


@pytest.mark.parametrize("by", ["magnitude", "wanda", "sparsegpt"])
def test_two_of_each_four_neighbours_are_zero_in_every_map(by: str) -> None:
    model = llama()
    assert mask.mask(model, half(by=by, pattern="2:4"), TEXT, 0, unheard)["sparsity"] == pytest.approx(0.5)
    for linear in mask.linear_maps(model):
        assert ((linear.weight.unflatten(1, (-1, 4)) == 0).sum(dim=2) == 2).all()


@pytest.mark.parametrize(("by", "sparsity"), [("magnitude", 0.25), ("wanda", 0.75), ("sparsegpt", 0.75)])
def test_the_sparsity_asked_for_comes_out_and_embedding_head_and_norms_are_left_alone(by: str, sparsity: float) -> None:
    model = llama(tied=False)
    before = weights(model)
    found = mask.mask(model, half(by=by, sparsity=sparsity), TEXT, 0, unheard)
    assert found == {"sparsity": pytest.approx(sparsity, abs=0.02), "recovery_losses": []}
    masked = {name for name, weight in weights(model).items() if not torch.equal(weight, before[name])}
    assert masked == {name for name in before if "_proj." in name}


@pytest.mark.parametrize("by", ["magnitude", "wanda"])
def test_weights_that_stay_are_as_they_were(by: str) -> None:
    model = llama()
    before = weights(model)
    mask.mask(model, half(by=by), TEXT, 0, unheard)
    for name, weight in weights(model).items():
        assert torch.equal(weight[weight != 0], before[name][weight != 0])


def test_wanda_keeps_what_activations_make_large() -> None:
    model: Any = llama(layers=1)
    model.model.layers[0].input_layernorm.weight[:32] = 1e-6
    mask.mask(model, half(by="wanda"), TEXT, 0, unheard)
    query = model.model.layers[0].self_attn.q_proj.weight
    assert (query[:, :32] == 0).all()
    assert (query[:, 32:] != 0).all()


def test_zeros_stay_zero_through_training_and_the_rest_of_the_model_is_not_trained() -> None:
    plain, trained = llama(), llama()
    before = weights(trained)
    mask.mask(plain, half(), TEXT, 0, unheard)
    found = mask.mask(trained, half(recovery_steps=20), TEXT, 0, unheard)
    assert len(found["recovery_losses"]) == 20
    assert found["sparsity"] == pytest.approx(0.5, abs=0.001)
    for name, weight in weights(trained).items():
        if "_proj." in name:
            assert torch.equal(weight == 0, weights(plain)[name] == 0)
        else:
            assert torch.equal(weight, before[name])


def test_training_brings_the_loss_on_its_text_down() -> None:
    text, losses = some_text(blocks=2), []
    for recovery_steps in (0, 40):
        model = llama()
        mask.mask(model, half(sparsity=0.7, recovery_steps=recovery_steps), text, 0, unheard)
        rows = torch.tensor(text.rows)
        losses.append(model(rows, labels=rows).loss.item())
    assert losses[1] < losses[0] - 0.05


def test_the_same_seed_trains_the_same_weights_and_another_one_others() -> None:
    said = []
    for seed in (0, 0, 1):
        model = llama()
        mask.mask(model, half(rounds=2, recovery_steps=3), TEXT, seed, unheard)
        said.append(logits(model, TEXT))
    assert torch.equal(said[0], said[1])
    assert not torch.equal(said[0], said[2])


@pytest.mark.parametrize("by", ["magnitude", "wanda"])
def test_experts_that_are_no_linear_maps_are_refused_and_not_left_out(by: str) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_local_experts": 2}
    model = MixtralForCausalLM(
        MixtralConfig(vocab_size=VOCABULARY, num_attention_heads=4, num_key_value_heads=2, **sizes)
    )
    with pytest.raises(Unsupported, match="MixtralForCausalLM holds its experts together in"):
        mask.mask(model, half(by=by), TEXT, 0, unheard)
