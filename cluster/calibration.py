"""What did a measured run teach about an engine on a device, and which run speaks for another model?"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from math import ceil, inf, isfinite, log
from typing import Any, get_args, get_origin

from cluster.model import Model
from cluster.step_time import Coefficients

FORMAT = 2
"""Of the file; another number is refused."""


class BadCalibration(ValueError):
    """A file that holds no calibration; its text names the field, what it was and what is allowed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelIdentity:
    """What of a model sets how fast it runs."""

    architecture: str
    parameters: int
    layers: int
    hidden: int
    quantized: str | None
    """The method by which the weights were quantized."""
    dtype: str
    """Of the matrix products' inputs in the engine, by the names of Device.flops."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Residual:
    """One load of the run: how long its steps took, and how long the fitted formula says."""

    point: str
    measured_s: float
    predicted_s: float

    @property
    def error(self) -> float:
        """Relative, by the smaller of both: 0.1 where either is 10 % above the other."""
        return max(self.measured_s, self.predicted_s) / min(self.measured_s, self.predicted_s) - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Coefficients of one engine on one device, and how well they describe what was measured."""

    device: str
    """By the names of `device_facts`."""
    tensor: int
    """Devices over which each layer was split."""
    pipeline: int
    model: ModelIdentity
    engine: Mapping[str, Any]
    """Settings of the engine, by vLLM's names; JSON values."""
    coefficients: Coefficients
    residuals: tuple[Residual, ...]
    checks: tuple[Residual, ...]
    """Of loads that were measured beside, and not fitted; none where nobody asked for them."""
    date: str
    """ISO 8601."""
    versions: Mapping[str, str]

    @property
    def points(self) -> int:
        """Loads that were measured."""
        return len(self.residuals)

    @property
    def error(self) -> float:
        """Nine of ten loads took between time / (1 + error) and time * (1 + error); of those not fitted, where there
        are any.
        """
        return quantile(self.checks or self.residuals, 0.9)


@dataclass(frozen=True, kw_only=True, slots=True)
class Applied:
    """A calibration as it speaks for a model."""

    calibration: Calibration
    coefficients: Coefficients
    """Of the calibration, or scaled to the model."""
    is_exact: bool
    """Whether this very model was measured."""


def identity(model: Model, dtype: str) -> ModelIdentity:
    """What a calibration remembers of a model; `dtype` by the names of Device.flops."""
    return ModelIdentity(
        architecture=model.architecture,
        parameters=model.parameters,
        layers=model.layers,
        hidden=model.hidden,
        quantized=model.quantized,
        dtype=dtype,
    )


def quantile(residuals: Iterable[Residual], share: float) -> float:
    """The error that `share` of all loads stay within: the smallest measured one that does."""
    errors = sorted(residual.error for residual in residuals)
    return errors[max(0, ceil(share * len(errors)) - 1)] if errors else inf


def applying(
    calibrations: Iterable[Calibration], *, device: str, model: ModelIdentity, tensor: int = 1, pipeline: int = 1
) -> Applied | None:
    """The newest run of this very model and layout; else of the model nearest in size on the same device, scaled;
    None where nothing was measured on it: then its data sheet is all there is.
    """
    known = [calibration for calibration in calibrations if calibration.device == device]
    if not known:
        return None
    newest_first = sorted(known, key=lambda calibration: calibration.date, reverse=True)
    nearest = min(newest_first, key=lambda calibration: _distance(calibration, model, (tensor, pipeline)))
    return Applied(
        calibration=nearest,
        coefficients=scaled(nearest.coefficients, nearest.model, model),
        is_exact=nearest.model == model and (nearest.tensor, nearest.pipeline) == (tensor, pipeline),
    )


def scaled(coefficients: Coefficients, measured: ModelIdentity, model: ModelIdentity) -> Coefficients:
    """The coefficients of another model on the same device. Shares of the device stay; what is spent on launches grows
    with layers, what is spent on a token beside its matrix products with layers and width.
    """
    deeper = model.layers / measured.layers
    return replace(
        coefficients,
        step_s=coefficients.step_s * deeper,
        sequence_s=coefficients.sequence_s * deeper,
        token_s=coefficients.token_s * deeper * model.hidden / measured.hidden,
    )


def to_json(calibration: Calibration) -> str:
    """The file's text; the errors in it are for its readers."""
    values = {"format": FORMAT} | asdict(calibration)
    values["errors"] = {share: quantile(calibration.residuals, float(share)) for share in ("0.5", "0.9")}
    return json.dumps(values, indent=1) + "\n"


def from_json(text: str) -> Calibration:
    """Reads what `to_json` wrote. Raises BadCalibration."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise BadCalibration(f"is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise BadCalibration(f"should be an object, got {_short(values)}")
    if values.get("format") != FORMAT:
        raise BadCalibration(f"format: should be {FORMAT}, got {_short(values.get('format'))}: calibrate anew")
    return _read(Calibration, {name: value for name, value in values.items() if name not in ("format", "errors")}, "")


def _distance(calibration: Calibration, model: ModelIdentity, layout: tuple[int, int]) -> tuple[bool | float, ...]:
    """How little a run says of a model, in order of weight."""
    measured = calibration.model
    return (
        (measured.dtype, measured.quantized) != (model.dtype, model.quantized),
        abs(log(measured.parameters / model.parameters)),
        (calibration.tensor, calibration.pipeline) != layout,
        measured != model,
    )


def _read(kind: Any, value: Any, where: str) -> Any:
    """A value of a file as the kind that a field declares."""
    if is_dataclass(kind):
        return _read_fields(kind, value, where)
    origin = get_origin(kind)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {name: _read(get_args(kind)[1], item, f"{where}.{name}") for name, item in value.items()}
    if kind is Any or (type(value) is kind and kind is not float):
        return value
    if kind is float and type(value) in (int, float) and isfinite(value) and value > 0:
        return float(value)
    if type(None) in get_args(kind) and (value is None or isinstance(value, str)):
        return value
    raise BadCalibration(f"{where}: should be {_words(kind)}, got {_short(value)}")


def _read_fields(kind: Any, value: Any, where: str) -> Any:
    prefix = f"{where}." if where else ""
    if not isinstance(value, dict):
        raise BadCalibration(f"{where}: should be an object, got {_short(value)}")
    known = {field.name: field.type for field in fields(kind)}
    for name in value:
        if name not in known:
            raise BadCalibration(f"{prefix}{name}: unknown field (allowed: {', '.join(known)})")
    for name in known:
        if name not in value:
            raise BadCalibration(f"{prefix}{name}: is missing")
    return kind(**{name: _read(known[name], value[name], f"{prefix}{name}") for name in known})


def _words(kind: Any) -> str:
    names = {int: "a whole number", float: "a number above 0", str: "text", tuple: "a list", Mapping: "an object"}
    return names.get(get_origin(kind) or kind, "text or null")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
