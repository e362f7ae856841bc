"""From a checkpoint on disk to the next one: what is kept beside the weights, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from compress import kept, scores, steps
from compress.layers import Unsupported
from compress.recipe import Recipe, validate
from compress.text import gate
from tests.compress.tiny_checkpoint import checkpoint
from tests.compress.tiny_models import logits, some_text

SLICE = {"blocks": 2, "tokens": 32}
HALF = {"do": "mask", "by": "magnitude"}
TEXT = some_text()
STEPS: list[dict[str, Any]] = [
    {"do": "drop_layers", "layers": 1},
    {"do": "narrow_ffn", "share": 0.5},
    {"do": "narrow_attention", "kv_heads": 1},
    {**HALF, "rounds": 2, "recovery_steps": 2},
    {"do": "mask", "by": "sparsegpt", "pattern": "2:4"},
    {"do": "quantize", "scheme": "w8a8"},
    {"do": "quantize", "scheme": "w8a8", "by": "gptq", "smooth": 0.5},
    {"do": "quantize", "scheme": "w4a16"},
    {"do": "quantize", "scheme": "w4a16", "by": "gptq"},
    {"do": "quantize", "scheme": "w4a16_asym", "group": "channel"},
    {"do": "quantize", "scheme": "fp8"},
    {"do": "quantize", "scheme": "fp8", "kv_cache": "fp8"},
]
SCHEMES = [step for step in STEPS if step["do"] == "quantize"]


def recipe(*wanted: dict[str, Any]) -> Recipe:
    values = {"name": "one", "source": "here", "steps": list(wanted), "calibration": SLICE, "evaluation": SLICE}
    return validate(values)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("parent"))


def carried_out(before: Path, wanted: dict[str, Any], place: Path) -> Path:
    whole = recipe(wanted)
    return steps.carry_out(before, whole.steps[0], whole, place, lambda doing, share: None)


def read(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


@pytest.fixture(scope="module", params=STEPS, ids=str)
def result(request: pytest.FixtureRequest, parent: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each step makes of the parent."""
    return carried_out(parent, request.param, tmp_path_factory.mktemp("result") / "step-1")


@pytest.mark.slow
def test_what_is_read_again_says_exactly_what_the_compressor_said(result: Path) -> None:
    said = scores.Scores.load(result / steps.GATE_FILE)
    again, _ = scores.score(read(result), gate(AutoTokenizer.from_pretrained(result), recipe(HALF).evaluation))
    assert scores.distance(again, said).max() < 1e-6
    assert abs(again.nats - said.nats).max() < 1e-6


@pytest.mark.slow
def test_a_result_is_a_checkpoint_with_its_tokenizer_and_nothing_that_engines_stumble_over(result: Path) -> None:
    names = {path.name for path in result.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert names >= {"chat_template.jinja", "added_tokens.json"}
    assert "recipe.yaml" not in names
    assert AutoTokenizer.from_pretrained(result).apply_chat_template([{"content": "hi"}], tokenize=False) == "hi"
    config = json.loads((result / "config.json").read_text())
    assert not config.get("sparsity_config")
    assert not config.get("quantization_config", {}).get("sparsity_config")
    assert ("quantization_config" in config) == (steps.done(result).step["do"] == "quantize")


@pytest.mark.slow
def test_the_same_step_gives_the_same_weights_every_time(result: Path, parent: Path, tmp_path: Path) -> None:
    first = steps.done(result)
    second = steps.done(carried_out(parent, first.step, tmp_path / "step-2"))
    assert first.weights_hash == second.weights_hash == kept.checkpoint_hash(result)
    assert first.found == second.found
    assert (first.hash, second.hash) == ("step-1", "step-2")


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("wanted", SCHEMES, ids=str)
def test_the_head_stays_as_it_was_tied_or_not(wanted: dict[str, Any], tied: bool, tmp_path: Path) -> None:
    before = checkpoint(tmp_path / "before", tied=tied)
    place = carried_out(before, wanted, tmp_path / "step-1")
    tensors = load_file(place / "model.safetensors")
    assert json.loads((place / "config.json").read_text())["tie_word_embeddings"] == tied
    assert ("lm_head.weight" in tensors) == (not tied)
    assert torch.equal(read(place).lm_head.weight, read(before).lm_head.weight)
    assert {tensor.dtype for name, tensor in tensors.items() if "_proj.weight" in name} & {
        torch.int8,
        torch.int32,
        torch.float8_e4m3fn,
    }


def test_a_step_that_changes_no_weight_is_refused_however_the_config_was_written(parent: Path, tmp_path: Path) -> None:
    half = carried_out(parent, HALF, tmp_path / "half")
    with pytest.raises(steps.NoChange, match="mask left every weight as it was"):
        carried_out(half, HALF, tmp_path / "again")
    config = json.loads((half / "config.json").read_text())
    (half / "config.json").write_text(json.dumps(config | {"transformers_version": "4.0.0"}))
    with pytest.raises(steps.NoChange, match="mask left every weight as it was"):
        carried_out(half, HALF, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_groups_that_do_not_divide_are_refused_with_those_that_would(tmp_path: Path) -> None:
    before = checkpoint(tmp_path / "before", hidden=576)
    fields = {"do": "quantize", "scheme": "w4a16"}
    with pytest.raises(Unsupported, match=r"group 128 does not divide the widths \[64, 128, 576\]; 64, 32 would"):
        carried_out(before, fields | {"group": 128}, tmp_path / "step-1")
    assert not (tmp_path / "step-1").exists()
    assert steps.done(carried_out(before, fields, tmp_path / "step-2")).found == {"group": 64}


@pytest.mark.slow
def test_the_step_is_told_with_its_share_from_nothing_to_all(parent: Path, tmp_path: Path) -> None:
    heard: list[tuple[str, float | None]] = []
    whole = recipe({"do": "mask", "by": "wanda"})
    steps.carry_out(parent, whole.steps[0], whole, tmp_path / "x", lambda doing, share: heard.append((doing, share)))
    shares = [share for doing, share in heard if doing == "mask" and share is not None]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert [doing for doing, _ in heard if doing != "mask"] == ["loading", "asking the compressed model", "saving"]


@pytest.mark.slow
def test_the_library_logs_nothing(parent: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    carried_out(parent, {"do": "mask", "by": "wanda"}, tmp_path / "mask")
    carried_out(parent, {"do": "quantize", "scheme": "w8a8", "by": "gptq"}, tmp_path / "quantize")
    printed = capfd.readouterr()
    assert printed.out == ""
    assert not re.search("INFO|WARNING|METRIC", printed.err)


def test_a_result_is_another_when_anything_that_decides_it_is(parent: Path) -> None:
    one, other = (recipe(wanted).steps[0] for wanted in STEPS[:2])
    names = [
        steps.result_name("a", one, TEXT, 0, TEXT),
        steps.result_name("b", one, TEXT, 0, TEXT),
        steps.result_name("a", other, TEXT, 0, TEXT),
        steps.result_name("a", one, some_text(seed=1), 0, TEXT),
        steps.result_name("a", one, TEXT, 1, TEXT),
        steps.result_name("a", one, TEXT, 0, some_text(seed=1)),
    ]
    assert len(set(names)) == len(names)


@pytest.mark.slow
def test_steps_follow_one_another(parent: Path, tmp_path: Path) -> None:
    place = parent
    for number, wanted in enumerate([*STEPS[:3], HALF, *SCHEMES[:1]]):
        place = carried_out(place, wanted, tmp_path / f"step-{number}")
    model = read(place)
    config = model.config
    assert (config.num_hidden_layers, config.intermediate_size, config.num_key_value_heads) == (2, 64, 1)
    assert logits(model, TEXT).isfinite().all()


@pytest.mark.parametrize(("model_bytes", "held"), [(0, True), (70, True), (71, False), (200, False)])
def test_a_gpu_holds_a_model_only_with_room_for_the_step(model_bytes: int, held: bool) -> None:
    assert steps.is_held(model_bytes, free_bytes=100) is held
