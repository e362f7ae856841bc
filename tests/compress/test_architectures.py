"""Which architectures does each step change, so that the result runs, is saved and computes the same when it is read?

The answer is docs/compression-architectures.md; HEADRACE_WRITE=1 writes it anew.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from compress.layers import Unsupported
from compress.recipe import Step
from compress.recipe import validate as recipe
from compress.steps import change, save
from compress.text import Blocks

DOCUMENT = Path(__file__).parents[2] / "docs" / "compression-architectures.md"
VOCABULARY = 96
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OLD_SIZES = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
# Windows shorter than the text, heads that are wider than their share, layers that differ: what a step could forget.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Llama": SIZES,
    "Mistral": SIZES | {"sliding_window": 8},
    "Qwen2": SIZES | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
    "Qwen3": SIZES | {"head_dim": 32},
    "Gemma": SIZES | {"head_dim": 32},
    "Gemma2": SIZES | {"head_dim": 32, "sliding_window": 8},
    "Gemma3Text": SIZES
    | {"head_dim": 32, "sliding_window": 8, "layer_types": ["full_attention", "sliding_attention"] * 2},
    "Granite": SIZES | {"attention_multiplier": 0.2, "residual_multiplier": 0.5, "logits_scaling": 2.0},
    "SmolLM3": SIZES | {"no_rope_layers": [0, 1, 0, 1]},
    "Olmo2": SIZES,
    "StableLm": SIZES,
    "Cohere": SIZES,
    "Starcoder2": SIZES | {"sliding_window": 8},
    "Phi": SIZES,
    "Phi3": SIZES,
    "Mixtral": SIZES | {"num_local_experts": 4},
    "Qwen3Moe": SIZES | {"head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "GptOss": SIZES | {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
    "Falcon": OLD_SIZES,
    "GPTNeoX": OLD_SIZES | {"intermediate_size": 128, "max_position_embeddings": 64},
    "GPT2": {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 4, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2},
}
STEPS: dict[str, dict[str, Any]] = {
    "drop_layers": {"layers": 1},
    "narrow_ffn": {"share": 0.5, "multiple": 32},
    "narrow_attention": {"kv_heads": 1},
    "mask, magnitude": {"by": "magnitude"},
    "mask, wanda": {"by": "wanda"},
    "quantize, w8a8": {"scheme": "w8a8"},
}
IDLE = 1
"""The layer that is made to change little, so that it is the one that goes."""
TEXT = Blocks(
    rows=tuple(
        tuple(row) for row in torch.randint(3, VOCABULARY, (3, 24), generator=torch.Generator().manual_seed(0)).tolist()
    )
)


def wanted(name: str) -> Step:
    values = {"do": name.split(",")[0]} | STEPS[name]
    return recipe({"name": "one", "source": "here", "steps": [values]}).steps[0]


def random_model(architecture: str, folder: Path) -> Any:
    """One whose every weight matters, biases and norms too, as it was read from the folder that it was saved in."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{architecture}Config")(**ARCHITECTURES[architecture])
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(0.15 * torch.randn(weight.shape) + (weight if weight.dim() == 1 else 0))
            if f".{IDLE}." in name:
                weight.mul_(0.2)
    model.to(torch.bfloat16).save_pretrained(folder)
    return loaded(folder)


def loaded(folder: Path) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    return model.requires_grad_(False).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor(TEXT.rows)).logits.float()


def outcome(architecture: str, step: str, folder: Callable[[], Path]) -> str:
    """`yes`, or why not: carries a step out on a random model and reads what it saved."""
    before = folder()
    model = random_model(architecture, before)
    dense = logits(model)
    try:
        change(model, wanted(step), TEXT, 0, lambda share: None)
    except Unsupported as refused:
        return str(refused)
    computed = logits(model)
    save(model, before, after := folder(), wanted(step))
    read = logits(loaded(after))
    if not computed.isfinite().all() or torch.equal(computed, dense):
        return "BROKEN: no effect, or no numbers"
    return "yes" if torch.equal(computed, read) else "BROKEN: computes otherwise when it is read again"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    def folder() -> Path:
        return tmp_path_factory.mktemp("model")

    return {name: {step: outcome(name, step, folder) for step in STEPS} for name in ARCHITECTURES}


def document(outcomes: dict[str, dict[str, str]]) -> str:
    lines = [
        "# Architectures",
        "",
        "Which step of a recipe changes which decoder of transformers. `yes`: a small random model of that",
        "architecture was changed, ran, was saved, and computed exactly the same when it was read again.",
        "`no`: the step refuses with the line below the table.",
        "",
        "Made by `HEADRACE_WRITE=1 pytest tests/compress/test_architectures.py`.",
        "",
        f"| | {' | '.join(STEPS)} |",
        f"|---|{'---|' * len(STEPS)}",
    ]
    reasons: list[str] = []
    for name, found in outcomes.items():
        cells = [_cell(said, reasons) for said in found.values()]
        lines.append(f"| {name.removesuffix('Text')} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"{number}. {said}" for number, said in enumerate(reasons, 1)), ""])


def _cell(said: str, reasons: list[str]) -> str:
    if said == "yes":
        return said
    if said not in reasons:
        reasons.append(said)
    return f"no ({reasons.index(said) + 1})"


@pytest.mark.slow
def test_the_documented_table_is_what_the_steps_do(outcomes: dict[str, dict[str, str]]) -> None:
    found = document(outcomes)
    if os.environ.get("HEADRACE_WRITE"):
        DOCUMENT.write_text(found)
    assert DOCUMENT.read_text() == found


@pytest.mark.slow
def test_no_step_breaks_a_model_without_saying_so(outcomes: dict[str, dict[str, str]]) -> None:
    said = [(name, step, said) for name, found in outcomes.items() for step, said in found.items()]
    assert [each for each in said if each[2].startswith("BROKEN")] == []


@pytest.mark.slow
def test_the_usual_decoders_can_be_cut_in_every_way(outcomes: dict[str, dict[str, str]]) -> None:
    for name in ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Gemma3Text", "Granite", "SmolLM3"):
        assert set(outcomes[name].values()) == {"yes"}
