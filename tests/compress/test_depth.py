"""A model without some of its layers is what its config says, for architectures whose layers differ too."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from compress import depth
from compress.layers import Unsupported
from compress.recipe import DropLayers
from tests.compress.tiny_models import VOCABULARY, llama, logits, some_text, unheard

TEXT = some_text()
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}


def seeded(kind: type, config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(config).requires_grad_(False).eval()


def read_again(model: Any, folder: Path) -> Any:
    model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def without_those(model: Any, skipped: list[int]) -> torch.Tensor:
    """What the model says when some of its layers pass on what comes in."""
    hooks = [model.model.layers[index].register_forward_hook(lambda _, given, said: given[0]) for index in skipped]
    said = logits(model, TEXT)
    for hook in hooks:
        hook.remove()
    return said


@pytest.mark.parametrize("skipped", [[0], [1], [3], [0, 2], [1, 2, 3]])
def test_what_is_left_computes_as_if_the_others_passed_on_what_they_got(skipped: list[int]) -> None:
    model = llama(layers=4)
    expected = without_those(model, skipped)
    depth.keep(model, [index for index in range(4) if index not in skipped])
    assert torch.equal(logits(model, TEXT), expected)
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == list(range(4 - len(skipped)))


def test_what_is_left_generates_with_its_cache_what_it_would_without() -> None:
    model = llama(layers=4)
    depth.keep(model, [1, 3])
    prompt = torch.tensor([TEXT.rows[0][:8]])
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    cached, plain = (model.generate(prompt, use_cache=use_cache, **options) for use_cache in (True, False))
    assert torch.equal(cached, plain)


@pytest.mark.parametrize("kept", [[1, 2, 3], [0, 2, 3], [3], [0, 3]])
def test_layers_that_leave_out_positions_are_still_those_after_a_reload(kept: list[int], tmp_path: Path) -> None:
    model = seeded(SmolLM3ForCausalLM, SmolLM3Config(**SIZES, no_rope_layers=[1, 0, 1, 0]))
    expected = without_those(model, [index for index in range(4) if index not in kept])
    depth.keep(model, kept)
    assert model.config.no_rope_layers == [[1, 0, 1, 0][index] for index in kept]
    assert torch.equal(logits(model, TEXT), expected)
    assert torch.equal(logits(read_again(model, tmp_path), TEXT), expected)


@pytest.mark.parametrize("kept", [[1, 2, 3], [0, 2, 3], [1, 3]])
def test_layers_that_see_a_window_are_still_those_after_a_reload(kept: list[int], tmp_path: Path) -> None:
    model = seeded(Gemma2ForCausalLM, Gemma2Config(**SIZES, sliding_window=4))
    expected = without_those(model, [index for index in range(4) if index not in kept])
    depth.keep(model, kept)
    assert torch.equal(logits(model, TEXT), expected)
    assert torch.equal(logits(read_again(model, tmp_path), TEXT), expected)


def test_a_config_that_cannot_say_which_layers_are_left_is_refused() -> None:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 2}
    model = seeded(Qwen3MoeForCausalLM, Qwen3MoeConfig(**SIZES, **experts))
    model.model.layers[0].self_attn.o_proj.weight.zero_()
    model.model.layers[0].mlp.down_proj.weight.zero_()
    with pytest.raises(Unsupported, match=r"drop_layers: Qwen3MoeForCausalLM's config can't say that \[0\] of its"):
        depth.drop_layers(model, DropLayers(do="drop_layers", layers=1), TEXT, unheard)


def test_influence_is_one_less_the_cosine_of_a_layers_ends() -> None:
    model = llama(layers=2)
    ends: list[torch.Tensor] = []
    hook = model.model.layers[1].register_forward_hook(lambda _, given, said: ends.extend((given[0], said)))
    logits(model, some_text(blocks=1))
    hook.remove()
    found = depth.block_influence(model, some_text(blocks=1), unheard)
    assert found[1] == pytest.approx(1 - torch.cosine_similarity(*ends, dim=-1).mean().item(), abs=1e-5)
    assert len(found) == 2
    assert all(0 <= each <= 2 for each in found)


def test_the_layers_that_matter_least_go_several_at_once() -> None:
    model = llama(layers=4)
    for index, share in ((0, 0.01), (2, 0.02)):
        model.model.layers[index].self_attn.o_proj.weight.mul_(share)
        model.model.layers[index].mlp.down_proj.weight.mul_(share)
    found = depth.drop_layers(model, DropLayers(do="drop_layers", layers=2), TEXT, unheard)
    assert found["dropped"] == [0, 2]
    assert model.config.num_hidden_layers == len(model.model.layers) == 2
