"""A step's result is a checkpoint that others read as it was meant."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from compress import steps
from compress.library import oneshot
from compress.recipe import Recipe, Step, validate
from tests.compress.tiny_models import llama, logits, some_text, unheard

TEXT = some_text()
SCHEMES = [
    {"scheme": "w8a8"},
    {"scheme": "w4a16", "group": 32},
    {"scheme": "w4a16", "group": 32, "by": "gptq"},
    {"scheme": "w4a16_asym", "group": "channel"},
    {"scheme": "fp8"},
    {"scheme": "w8a8", "kv_cache": "fp8"},
]


def quantized(fields: dict[str, object]) -> Step:
    return recipe({"do": "quantize"} | fields).steps[0]


def recipe(*wanted: dict[str, object]) -> Recipe:
    text = {"blocks": 4, "tokens": 64}
    values = {"name": "one", "source": "tiny", "steps": list(wanted), "calibration": text, "evaluation": text}
    return validate(values)


def names(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return set(file.keys())


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("fields", SCHEMES, ids=str)
def test_what_is_saved_computes_what_the_compressor_did(fields: dict[str, object], tied: bool, tmp_path: Path) -> None:
    model = llama(tied=tied, dtype=torch.bfloat16)
    dense = logits(model, TEXT)
    steps.change(model, quantized(fields), TEXT, 0, unheard)
    own = logits(model, TEXT)
    steps.save(model, tmp_path / "before", tmp_path, quantized(fields))
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").eval()
    assert (own - dense).abs().mean() > 0.01
    torch.testing.assert_close(logits(again, TEXT), own)
    config = json.loads((tmp_path / "config.json").read_text())
    assert not config["quantization_config"].get("sparsity_config")
    assert config.get("tie_word_embeddings", False) == tied
    assert not (tmp_path / "recipe.yaml").exists()


def test_a_head_that_was_promised_and_not_saved_is_refused(tmp_path: Path) -> None:
    """What llm-compressor makes of a tied model when nothing tells it to leave the head alone."""
    from llmcompressor.modifiers.quantization import QuantizationModifier

    model = llama(tied=True, dtype=torch.bfloat16)
    scheme = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor", "dynamic": False}
    oneshot(model, [QuantizationModifier(kv_cache_scheme=scheme)], TEXT, unheard)
    try:
        steps.save(model, tmp_path / "before", tmp_path, quantized({"scheme": "w8a8"}))
    except steps.LostHead:
        return
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] or "lm_head.weight" in names(
        tmp_path
    )


def test_a_doctored_config_is_seen(tmp_path: Path) -> None:
    model = llama(tied=True)
    model.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tie_word_embeddings": False}))
    with pytest.raises(steps.LostHead):
        steps.refuse_lost_head(tmp_path)


@pytest.mark.slow
def test_a_step_carried_out_twice_gives_the_same_weights(tmp_path: Path) -> None:
    from headrace.fetching import resolve

    wanted = recipe({"do": "narrow_ffn", "share": 0.25})
    places = [
        steps.carry_out(resolve("tiny"), wanted.steps[0], wanted, tmp_path / name, lambda doing, share: None)
        for name in ("one", "other")
    ]
    first, second = (steps.done(place) for place in places)
    assert first.weights_hash == second.weights_hash
    assert first.found == second.found
    assert (places[0] / "tokenizer.json").exists()


@pytest.mark.slow
def test_a_step_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    from headrace.fetching import resolve

    half = recipe({"do": "mask", "by": "magnitude", "sparsity": 0.5})
    once = steps.carry_out(resolve("tiny"), half.steps[0], half, tmp_path / "once", lambda doing, share: None)
    with pytest.raises(steps.NoChange, match="left every weight as it was"):
        steps.carry_out(once, half.steps[0], half, tmp_path / "again", lambda doing, share: None)
    assert not (tmp_path / "again").exists()
    shutil.rmtree(once)
