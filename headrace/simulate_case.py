"""Which engines would a fleet file start on a device, and how fast are they there?"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from autoscaling import StepCosts, Targets
from cluster.engine_memory import EngineSettings
from cluster.fit import Fit, fit, smallest_fit
from cluster.inventory import machine
from cluster.kv_cache import NotAllocated
from cluster.model import in_float32
from cluster.quick_step import quick_step_seconds
from cluster.speed import Speeds
from cluster.step_time import Layout
from deployments.declare import engines_at_most
from deployments.file_errors import FileError
from deployments.fleet import Fleet, Model, load
from headrace import engine_settings
from headrace.calibrate import stored
from headrace.engine_settings import not_followed
from headrace.failure import Failure, bad_input
from headrace.model_source import asked, chosen
from headrace.plan_devices import Place, places, speeds
from headrace.plan_variants import arithmetic
from headrace.simulate_asked import Options
from headrace.step_file import MeasuredStep
from headrace.step_file import read as read_steps
from headrace.steps import Steps
from headrace.variant_quality import judge, report_folder
from simulation.setup import Setup
from simulation.trace import BadTrace, Trace, read, scaled, tiled
from simulation.variants import Form

HOUR_S = 3600.0
Costs = Mapping[str, StepCosts]
"""Of engines, by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What is simulated, and how it is told of."""

    model: Model
    place: Place
    fit: Fit
    speeds: Speeds
    setup: Setup
    variants: tuple[Form, ...]
    """With the model itself, the first; nothing where it has none."""
    targets: Targets
    notes: tuple[str, ...]


def case(options: Options) -> Case:
    """One model of the fleet and its variants on one device. Raises Failure."""
    fleet = _fleet(options.fleet)
    model = _judged(chosen(fleet, options.model)[0])
    hardware = machine()
    if not hardware.gpus:
        hardware = replace(hardware, cores=max(1, hardware.cores // engines_at_most(fleet)))
    place = places((options.gpu,) if options.gpu else (), None, hardware)[0]
    steps = read_steps(options.steps) if options.steps else None
    first, *rest = model.engines
    itself = _engine(first, place, fleet, options, steps, begins_with=1)
    others = [_engine(engine, place, fleet, options, steps, begins_with=0) for engine in rest]
    notes = [note for one in (itself, *others) for note in one.notes]
    if model.replicas.min == model.replicas.max:
        notes.append(f"{model.name} always has {model.replicas.max} replicas: `replicas` in the fleet file bounds them")
    if steps is None and "calibration" not in itself.speeds.origin:
        notes.append(f"times by {itself.speeds.origin}, not measured: `headrace calibrate` measures them there")
    forms = [Form(name=model.name, quality=1.0, setup=itself.setup)]
    for variant, one in zip(model.variants, others, strict=True):
        forms.append(Form(name=variant.name, quality=variant.quality or 0.0, setup=one.setup))
    if others:
        notes.append(f"policies but headrace play {model.name} alone, without its variants")
    return Case(
        model=model,
        place=place,
        fit=itself.fit,
        speeds=itself.speeds,
        setup=itself.setup,
        variants=tuple(forms) if others else (),
        targets=fleet.scaling.targets(),
        notes=tuple(notes),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Engine:
    """One engine deployment."""

    fit: Fit
    speeds: Speeds
    setup: Setup
    notes: list[str]


def _engine(
    model: Model, place: Place, fleet: Fleet, options: Options, steps: Costs | None, *, begins_with: int
) -> _Engine:
    """`steps`: what steps cost, by engine, where that was measured; `begins_with`: replicas that serve when the trace
    begins, if the file does not keep more.
    """
    found = asked("--fleet", model.source)
    shape = in_float32(found.model) if place.dtype == "fp32" else found.model
    settings = engine_settings.settings(model.engine, place.device, longest_tokens=found.model.context_tokens)
    notes = [f"the simulation does not follow engine.{name}" for name in not_followed(model.engine)]
    held = _fit(model, shape, place, settings)
    narrow = arithmetic(found.config)
    dtype = narrow if narrow in place.device.flops else place.dtype
    known = speeds(shape, place.device, dtype=dtype or "", layout=held.layout, calibrations=stored())
    step = quick_step_seconds(shape, place.device, known, layout=held.layout, kv_bits=settings.kv_bits)
    if steps is not None:
        step, known = _measured(model.name, steps), replace(known, origin=f"measured steps, {options.steps}")
    tokens = int(held.largest_batch * settings.context_tokens)
    setup = Setup(
        settings=settings,
        kv_blocks=tokens // settings.block_tokens,
        step=step,
        plans_ahead=place.device.capability != "cpu",
        devices=held.layout.devices,
        startup_s=options.startup,
        failure_s=options.failures * HOUR_S if options.failures else float("inf"),
        min_replicas=model.replicas.min,
        max_replicas=model.replicas.max,
        begins_with=max(begins_with, model.replicas.min),
        max_queued_requests=fleet.router.max_queued_requests * fleet.router.replicas,
    )
    return _Engine(fit=held, speeds=known, setup=setup, notes=notes)


def _measured(engine: str, steps: Costs) -> MeasuredStep:
    if engine not in steps:
        raise bad_input(f"--steps: should tell of {engine}, tells of {', '.join(steps) or 'none'}")
    return MeasuredStep(steps[engine])


def trace(options: Options, case: Case, *, seed: int) -> tuple[Trace, list[str]]:
    """The trace as it is played, and what was changed. Raises Failure."""
    path, notes = Path(options.trace).expanduser(), []
    try:
        found = read(path)
    except BadTrace as error:
        raise bad_input(f"--trace: {path}: {error}") from None
    setup = case.setup
    room = min(setup.settings.context_tokens, setup.kv_blocks * setup.settings.block_tokens + 1)
    try:
        played = found.fitting(room)
    except IndexError:
        raise bad_input(f"--trace: {path}: every request has more than the {room:,} tokens that engines take") from None
    if left_out := found.requests - played.requests:
        notes.append(f"{left_out:,} of {found.requests:,} requests have more than {room:,} tokens and were left out")
    if options.tile:
        try:
            played = tiled(played, least_s=options.tile)
        except BadTrace as error:
            raise bad_input(f"--tile: {path}: {error}") from None
    if options.scale != 1:
        played = scaled(played, options.scale, seed=seed)
    return played, notes


def _judged(model: Model) -> Model:
    """With the quality of each variant. Raises Failure."""
    told = Steps(Console(stderr=True, highlight=False))
    variants = [judge(model, variant, report_folder(variant.source), told) for variant in model.variants]
    return model.model_copy(update={"variants": variants})


def _fleet(given: str | None) -> Fleet:
    path = Path(given or "fleet.yaml").expanduser()
    try:
        return load(path)
    except FileError as error:
        raise bad_input("\n".join(f"--fleet: {line}" for line in str(error).splitlines())) from None


def _fit(model: Model, shape: Any, place: Place, settings: EngineSettings) -> Fit:
    try:
        if model.tensor_parallel == "auto":
            held = smallest_fit(shape, place.device, settings=settings, per_machine=place.per_machine)
        else:
            layout = Layout(tensor=model.tensor, pipeline=model.pipeline_parallel)
            held = fit(shape, place.device, layout=layout, settings=settings)
    except NotAllocated as error:
        raise Failure(f"no cache can be planned: {error}") from None
    if held is None or not held.fits:
        raise bad_input(f"--gpu: {model.name} does not fit on {place.device.name}: `headrace plan` says what would")
    return held
