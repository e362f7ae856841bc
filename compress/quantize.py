"""How do weights get fewer bits? By llm-compressor's modifiers, with group sizes that divide."""

from typing import Any

from compress.layers import Report, Unsupported
from compress.library import oneshot
from compress.mask import linear_maps
from compress.recipe import Quantize
from compress.text import Blocks

GROUPS = (128, 64, 32)
IGNORED = ["re:.*lm_head"]
"""The head stays as it is. Not naming it would lose a head that is tied to the embedding."""


def quantize(model: Any, step: Quantize, text: Blocks, report: Report) -> dict[str, Any]:
    """Quantizes the model in place, as llm-compressor saves it; returns the group size. Raises Unsupported."""
    group = group_size(step, sorted({linear.in_features for linear in linear_maps(model)}))
    oneshot(model, modifiers(step, group), text, report)
    return {"group": group}


def group_size(step: Quantize, widths: list[int]) -> int | None:
    """Weights that share a scale; None: a whole channel. Raises Unsupported where it does not divide a width."""
    if not step.scheme.startswith("w4") or step.group == "channel":
        return None
    fits = [group for group in GROUPS if all(width % group == 0 for width in widths)]
    if step.group == "auto":
        if not fits:
            raise Unsupported(f"quantize: none of the groups {GROUPS} divides the widths {widths}: try group: channel")
        return fits[0]
    if any(width % step.group for width in widths):
        near = f"; {', '.join(map(str, fits))} would" if fits else ""
        raise Unsupported(f"quantize: group {step.group} does not divide the widths {widths}{near}")
    return step.group


def modifiers(step: Quantize, group: int | None) -> list[Any]:
    """llm-compressor's modifiers for a step, in order."""
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    kind = GPTQModifier if step.by == "gptq" else QuantizationModifier
    groups: Any = {"all": _scheme(step, group)}
    last = kind(config_groups=groups, ignore=IGNORED, **_kv_cache(step))
    before = [SmoothQuantModifier(smoothing_strength=step.smooth)] if step.smooth else []
    return [*before, *([AWQModifier()] if step.by == "awq" else []), last]


def _scheme(step: Quantize, group: int | None) -> dict[str, Any]:
    if step.scheme.startswith("w4"):
        strategy = "channel" if group is None else "group"
        symmetric = step.scheme == "w4a16"
        weights = {"num_bits": 4, "type": "int", "symmetric": symmetric, "strategy": strategy, "group_size": group}
        return {"targets": ["Linear"], "weights": weights}
    kind = {"num_bits": 8, "type": "float" if step.scheme == "fp8" else "int", "symmetric": True}
    return {
        "targets": ["Linear"],
        "weights": kind | {"strategy": "channel"},
        "input_activations": kind | {"strategy": "token", "dynamic": True},
    }


def _kv_cache(step: Quantize) -> dict[str, Any]:
    if step.kv_cache == "auto":
        return {}
    scheme = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor", "dynamic": False}
    return {"kv_cache_scheme": scheme}
