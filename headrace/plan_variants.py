"""In which forms may a model be served: as it is, quantized by forecast, or as the artefacts in a folder?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.config_keys import UnknownModel, decoder_fields
from cluster.model import Model
from cluster.model_config import describe
from cluster.step_time import Layout
from cluster.tensors import UnreadableCheckpoint, largest_float
from headrace.failure import Failure, bad_input
from headrace.model_source import Described, from_folder
from headrace.variant_quality import Share

if TYPE_CHECKING:
    from compress.report import Report
    from compress.shape import Shape

AS_IT_IS = "as it is"
SCHEMES = ("fp8", "w8a8", "w4a16", "w4a16_asym")
REMEDIES = ("w8a8", "w4a16")
"""What is tried where a model does not fit: 8 bits and 4."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """Perplexity over the parent's, measured; the bounds of its 95 % interval."""

    perplexity_ratio: float
    low: float
    high: float
    executor: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """How a fleet file has a form of a model served."""

    engine: Mapping[str, Any]
    """Engine arguments."""
    layout: Layout | None
    """None: the file leaves it open."""
    most_replicas: int
    share: Share
    """Of the model's own quality."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One form of a model."""

    name: str
    model: Model
    arithmetic: str | None
    """Narrow dtype of its matrix products, by the names of Device.flops; None: that of its activations."""
    quality: Quality | None = None
    served: Served | None = None
    """None: no fleet file speaks of it."""
    note: str = ""
    """What a reader must know of it."""


def variants(asked: Described, schemes: Sequence[str], folder: Path | None) -> tuple[Variant, ...]:
    """The model as it is first, then the other forms. Raises Failure."""
    whole = Variant(name=AS_IT_IS, model=asked.model, arithmetic=arithmetic(asked.config))
    return (whole, *(forecast(asked, scheme) for scheme in schemes), *(_artefacts(folder) if folder else ()))


def forecast(asked: Described, scheme: str) -> Variant:
    """What quantizing would make of the model, its bytes exact where all layers are alike. Raises Failure."""
    # Here, since it loads torch.
    from compress.forecast import Impossible, after
    from compress.recipe import Quantize

    step = Quantize.model_validate({"do": "quantize", "scheme": scheme})
    try:
        made = after(_shape(asked), step)
    except Impossible as error:
        raise bad_input(f"--quantization {scheme}: {error}") from None
    config = asked.config | {"quantization_config": _method(scheme)}
    return Variant(
        name=scheme,
        model=describe(config, made.tensors),
        arithmetic=arithmetic(config),
        note="forecast from the recipe's step: nothing was quantized, no quality is known",
    )


def arithmetic(config: Mapping[str, Any]) -> str | None:
    """In which narrow dtype weights and activations are multiplied; None where only weights are stored narrow."""
    quantization = config.get("quantization_config") or {}
    match quantization.get("quant_method"):
        case "compressed-tensors":
            groups = quantization.get("config_groups") or {}
            return next((kind for group in groups.values() if (kind := _both(group))), None)
        case "fp8" | "fbgemm_fp8":
            return "fp8"
        case "modelopt":
            return {"FP8": "fp8", "NVFP4": "fp4"}.get(str(quantization.get("quant_algo")))
    return None


def _both(group: Mapping[str, Any]) -> str | None:
    weights, activations = group.get("weights") or {}, group.get("input_activations")
    kind = f"{'fp' if weights.get('type') == 'float' else 'int'}{weights.get('num_bits')}"
    return kind if activations and activations.get("num_bits") == weights.get("num_bits") else None


def _method(scheme: str) -> dict[str, Any]:
    """What llm-compressor would write into config.json, as far as it is read here."""
    kind = {"num_bits": 4 if scheme.startswith("w4") else 8, "type": "float" if scheme == "fp8" else "int"}
    activations = None if scheme.startswith("w4") else kind
    groups = {"group_0": {"weights": kind, "input_activations": activations}}
    return {"quant_method": "compressed-tensors", "config_groups": groups}


def _shape(asked: Described) -> "Shape":
    from compress.shape import Shape

    fields, dtype = decoder_fields(asked.config), largest_float(asked.tensors) or "BF16"
    heads = fields["num_attention_heads"] or 1
    return Shape(
        architecture=asked.model.architecture,
        tensors=asked.tensors,
        layers=asked.model.layers,
        hidden=asked.model.hidden,
        heads=heads,
        kv_heads=fields["num_key_value_heads"] or heads,
        head_dim=fields.get("head_dim") or asked.model.hidden // heads,
        neurons=fields["intermediate_size"],
        dtype=dtype,
        kv_dtype=dtype,
        tied=asked.model.tied,
        quantized=asked.model.quantized,
    )


def _artefacts(folder: Path) -> list[Variant]:
    from compress.report import FILE, load
    from headrace.artefacts import found

    if not folder.is_dir():
        raise bad_input(f"--variants: {folder} is no folder")
    reports = [(folder, load(folder))] if (folder / FILE).exists() else found([folder])
    if not reports:
        raise bad_input(f"--variants: no artefact (a folder with {FILE}) in {folder}")
    return [_artefact(path, report) for path, report in reports]


def _artefact(folder: Path, report: "Report") -> Variant:
    from headrace.report_words import leading_quality

    try:
        made = from_folder(report.name, folder)
    except (UnknownModel, UnreadableCheckpoint) as error:
        raise Failure(f"--variants: {report.name}: {error}") from None
    measured = leading_quality(report)
    return Variant(
        name=report.name,
        model=made.model,
        arithmetic=arithmetic(made.config),
        quality=measured
        and Quality(
            perplexity_ratio=measured.ratio.value,
            low=measured.ratio.low,
            high=measured.ratio.high,
            executor=measured.executor,
        ),
        note=f"made from {report.lineage.source}",
    )
