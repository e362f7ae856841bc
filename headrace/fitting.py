"""Does each model of a fleet fit on this machine's devices, over how many of them, and what would fit?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.config_keys import UnknownModel
from cluster.device_facts import here, this_cpu
from cluster.devices import Device
from cluster.engine_memory import EngineSettings
from cluster.fit import Fit, Remedy, fit, remedies
from cluster.inventory import Machine
from cluster.kv_cache import NotAllocated
from cluster.layouts import refusals
from cluster.model import Model as Shape
from cluster.model import in_float32
from cluster.step_time import Layout
from cluster.tensors import UnreadableCheckpoint
from deployments.fleet import Fleet, Model
from deployments.model_placement import Placement
from headrace.engine_settings import COUNTS, settings
from headrace.failure import Failure
from headrace.model_source import Described, from_folder
from headrace.plan_variants import REMEDIES, forecast


def settled(fleet: Fleet, machine: Machine) -> Fleet:
    """The fleet as this machine alone will run it: wishes among nodes are left out, and each `tensor_parallel: auto` is
    the fewest devices that hold the model; one on CPUs.

    Sources are folders by now. Raises Failure where no number of this machine's devices holds it.
    """
    found = fleet.with_engines(
        lambda engine: {"tensor_parallel": _fewest(engine, machine)} if engine.tensor_parallel == "auto" else {}
    )
    anywhere = [model.model_copy(update={"placement": Placement()}) for model in found.models]
    return found.model_copy(update={"models": anywhere})


def check_fit(model: Model, machine: Machine) -> None:
    """Raises Failure when an engine could not hold one sequence of the wanted context, and says what it could hold.

    Where the shape, the device or the engine's own arguments are beyond what is known here, vLLM decides.
    """
    described, device = _described(model), _device(machine)
    if described is None or device is None or (settings := _settings(model, device, described.model)) is None:
        return
    shape = _held(model, described.model, machine)
    layout = Layout(tensor=model.tensor, pipeline=model.pipeline_parallel)
    try:
        found = fit(shape, device, layout=layout, settings=settings)
        if _surely_missing_bytes(found, device):
            others = _forms(described) if machine.gpus else []
            tried = remedies(
                shape, device, layout=layout, settings=settings, others=others, per_machine=len(machine.gpus) or 1
            )
            raise Failure(_refusal(model, device, settings, found, _here(tried, machine)))
    except NotAllocated:
        return


def _fewest(model: Model, machine: Machine) -> int:
    described, device = _described(model), here(machine)
    if not machine.gpus:
        return 1
    if described is None or device is None or (settings := _settings(model, device, described.model)) is None:
        raise Failure(f"{model.name}: tensor_parallel: auto can't know this model or this GPU: write a number")
    shape, pipeline = _held(model, described.model, machine), model.pipeline_parallel
    most = len(machine.gpus) // (pipeline * model.data_parallel)
    counts = [count for count in range(1, most + 1) if not refusals(shape, count)]
    tried = [fit(shape, device, layout=Layout(tensor=count, pipeline=pipeline), settings=settings) for count in counts]
    if held := next((each for each in tried if each.fits), None):
        return held.layout.tensor
    if not tried:
        raise Failure(f"{model.name}: this machine's {len(machine.gpus)} GPUs are fewer than its {pipeline} stages")
    options = remedies(shape, device, layout=tried[-1].layout, settings=settings, others=_forms(described))
    raise Failure(_refusal(model, device, settings, tried[-1], options))


def _here(options: tuple[Remedy, ...], machine: Machine) -> tuple[Remedy, ...]:
    """Those that this machine has the devices for."""
    return tuple(option for option in options if option.layout.devices <= (len(machine.gpus) or 1))


def _described(model: Model) -> Described | None:
    try:
        return from_folder(model.name, Path(model.source))
    except (UnknownModel, UnreadableCheckpoint):
        return None


def _device(machine: Machine) -> Device | None:
    return here(machine) if machine.gpus else this_cpu(machine)


def _held(model: Model, shape: Shape, machine: Machine) -> Shape:
    """As the engine holds it: in float32 where a CPU has nothing else, or where the fleet says so."""
    widened = not machine.gpus and "avx512f" not in machine.cpu_features
    return in_float32(shape) if widened or model.engine.get("dtype") in ("float32", "float") else shape


def _settings(model: Model, device: Device, shape: Shape) -> EngineSettings | None:
    """What the engine will take; None where its arguments are written so that only vLLM can read them."""
    told: Mapping[str, Any] = model.engine
    if any(not isinstance(told[name], int) or told[name] < 1 for name in COUNTS.keys() & told.keys()):
        return None
    return settings(told, device, longest_tokens=shape.context_tokens)


def _surely_missing_bytes(found: Fit, device: Device) -> int:
    """What is missing even if activations and runtime, which are estimates on GPUs, took nothing."""
    estimated = 0 if device.capability == "cpu" else found.memory.activation_bytes + found.memory.runtime_bytes
    return max(0, found.missing_bytes - estimated)


def _forms(described: Described) -> list[tuple[str, Shape]]:
    forms = []
    for scheme in REMEDIES:
        try:
            forms.append((scheme, forecast(described, scheme).model))
        except Failure:
            continue
    return forms


def _refusal(model: Model, device: Device, settings: EngineSettings, found: Fit, options: tuple[Remedy, ...]) -> str:
    memory, devices = found.memory, found.layout.devices
    text = (
        f"{model.name} does not fit on {devices} x {device.name}: each holds {_gb(memory.weights_bytes)} of weights, "
        f"{_gb(max(0, memory.kv_bytes))} are left for the cache, and one sequence of {settings.context_tokens:,} "
        f"tokens takes {_gb(found.sequence_bytes)}"
    )
    ways = [_way(option, found) for option in options]
    return f"{text}; what would fit: {'; '.join(ways)}" if ways else f"{text}; nothing that is known here would help"


def _way(option: Remedy, found: Fit) -> str:
    if option.layout != found.layout:
        return f"tensor_parallel {option.layout.tensor}, pipeline_parallel {option.layout.pipeline} ({option.change})"
    if option.change.startswith("a context"):
        return f"{option.change} (engine: max_model_len)"
    if option.change == "an 8-bit cache":
        return f"{option.change} (engine: kv_cache_dtype fp8)"
    return f"{option.change} (headrace compress)"


def _gb(count_bytes: int) -> str:
    return f"{count_bytes / 1e9:.1f} GB"
