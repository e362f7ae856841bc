"""What does one step make of a checkpoint? Loads it, changes it, asks it, saves it."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, assert_never

from compress import kept, text
from compress.layers import Report
from compress.recipe import DropLayers, Edit, Mask, NarrowAttention, NarrowFfn, Quantize, Recipe, Step
from compress.report import StepDone
from compress.text import Blocks

Tell = Callable[[str, float | None], None]
"""Hears what is being done, and which share of it is done where that is known. What follows a comma is news of the same
work. It can be pickled: workers tell too."""
Change = Callable[[Any, Any, Tell], tuple[dict[str, Any], float]]
"""Changes a model in memory, given its tokenizer; returns what it measured, and seconds that it took before already."""

FILE = "step.json"
GATE_FILE = "gate.scores"
"""What the compressor computes on the gate's text, before anything is saved."""
TOKENIZER_FILES = (
    *("tokenizer*", "*.model", "vocab*", "merges.txt"),
    *("added_tokens.json", "special_tokens_map.json", "chat_template*"),
)
GPU_SHARE = 0.7
"""Of a GPU's free memory, for the weights; activations, statistics and a layer's copies take the rest."""
EDITION = 2
"""Rises when a step's code changes what it makes: older results then count no more."""


def versions() -> dict[str, str]:
    """The libraries that decide what a step makes."""
    names = ("torch", "transformers", "llmcompressor", "compressed-tensors")
    return {"steps": str(EDITION)} | {package: version(package) for package in names}


def result_name(before: str, step: Step, calibration: Blocks, seed: int, gate: Blocks) -> str:
    """Names what a step makes of the result called `before`."""
    return kept.name("step", before, step.model_dump(), calibration.hash, seed, gate.hash, versions())


def carry_out(before: Path, step: Edit, recipe: Recipe, place: Path, tell: Tell) -> Path:
    """The checkpoint that a step makes of another, kept at `place`. Raises Unsupported, NoChange."""

    def at_once(model: Any, tokenizer: Any, heard: Tell) -> tuple[dict[str, Any], float]:
        calibration = text.blocks(tokenizer, recipe.calibration, "calibration")
        return change(model, step, calibration, recipe.seed, lambda share: heard(step.do, share)), 0.0

    return kept.once(place, lambda partial: build(before, step, recipe, partial, tell, at_once))


class NoChange(ValueError):
    """A step that left every weight as it was."""


def done(place: Path) -> StepDone:
    """What is known about a finished step."""
    return StepDone.model_validate_json((place / FILE).read_text())


def build(before: Path, step: Step, recipe: Recipe, partial: Path, tell: Tell, change: Change) -> None:
    """Fills a folder with what a change makes of a checkpoint. Raises Unsupported, NoChange."""
    from compress import scores

    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    tell("loading", None)
    model, tokenizer = loaded(before)
    weights_before = _weights_hash(model)
    found, earlier_s = change(model, tokenizer, tell)
    if _weights_hash(model) == weights_before:
        raise NoChange(f"{step.do} left every weight as it was")
    tell("asking the compressed model", None)
    own, _ = scores.score(model, text.gate(tokenizer, recipe.evaluation))
    tell("saving", None)
    save(model, before, partial, step)
    own.save(partial / GATE_FILE)
    report = StepDone(
        step=step.model_dump(),
        hash=partial.name.strip(".").removesuffix(".partial"),
        weights_hash=kept.checkpoint_hash(partial),
        seconds=time.perf_counter() - start_s + earlier_s,
        cpu_seconds=time.process_time() - start_cpu_s,
        found=found,
    )
    (partial / FILE).write_text(report.model_dump_json(indent=1) + "\n")


def _weights_hash(model: Any) -> str:
    """Of the weights in memory: files with the same ones differ by who wrote them."""
    import torch

    total = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()


def loaded(folder: Path) -> tuple[Any, Any]:
    """A checkpoint's model, in its own dtype and on the GPU if there is one that holds it, and its tokenizer.

    What a GPU can't hold stays in the machine's memory: the library's steps bring it to the GPU layer by layer.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", trust_remote_code=False)
    model.requires_grad_(False).eval()
    if torch.cuda.is_available() and is_held(model.get_memory_footprint(), torch.cuda.mem_get_info()[0]):
        model.to("cuda")
    return model, AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def is_held(model_bytes: int, free_bytes: int) -> bool:
    """Whether a GPU with so much free memory holds a model and what a step needs beside it."""
    return model_bytes <= GPU_SHARE * free_bytes


def change(model: Any, step: Edit, calibration: Blocks, seed: int, report: Report) -> dict[str, Any]:
    """Carries a step out on a model in memory; returns what it measured. Raises Unsupported."""
    from compress import depth, mask, quantize, width

    match step:
        case DropLayers():
            return depth.drop_layers(model, step, calibration, report)
        case NarrowFfn():
            return width.narrow_ffn(model, step, calibration, seed, report)
        case NarrowAttention():
            return width.narrow_attention(model, step, calibration, report)
        case Mask():
            return mask.mask(model, step, calibration, seed, report)
        case Quantize():
            return quantize.quantize(model, step, calibration, report)
        case _:
            assert_never(step)


def save(model: Any, before: Path, folder: Path, step: Step) -> None:
    """Writes what a step made of the checkpoint `before`, with that one's tokenizer. Raises LostHead."""
    if isinstance(step, Quantize):
        model.save_pretrained(folder, save_compressed=True)
    else:
        model.save_pretrained(folder)
    # llm-compressor's own record can't be read back by a safe YAML loader; ours is the recipe.
    (folder / "recipe.yaml").unlink(missing_ok=True)
    for pattern in TOKENIZER_FILES:
        for path in before.glob(pattern):
            shutil.copyfile(path, folder / path.name)
    refuse_lost_head(folder)


class LostHead(RuntimeError):
    """A checkpoint whose config promises a head of its own that was not saved: vLLM would load it and say nothing."""


def refuse_lost_head(folder: Path) -> None:
    """Raises LostHead."""
    from safetensors import safe_open

    if json.loads((folder / "config.json").read_text()).get("tie_word_embeddings", False):
        return
    names: list[str] = []
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            names += file.keys()
    if not any(os.path.splitext(name)[0].endswith("lm_head") for name in names):
        raise LostHead("config.json has tie_word_embeddings: false, but no lm_head was saved")
