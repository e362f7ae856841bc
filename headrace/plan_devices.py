"""On which devices is a model planned, what is known of their speed, and how many share a machine?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cluster.calibration import Calibration, applying, identity
from cluster.device_facts import DEVICES, UnknownDevice, find, here, this_cpu
from cluster.devices import Device
from cluster.inventory import Machine
from cluster.model import Model
from cluster.speed import Speeds, unmeasured
from cluster.step_time import Layout
from headrace.failure import bad_input

PER_MACHINE = 8
ALONE = ("jetson-orin-nano-4gb",)
"""Devices that are the only one of their machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One kind of device in machines of one size."""

    device: Device
    per_machine: int
    dtype: str = "bf16"
    """What an engine computes in there, unless weights and activations are narrower: fp32 where bf16 is emulated."""


def places(names: Sequence[str], per_machine: int | None, machine: Machine) -> tuple[Place, ...]:
    """What `--gpu` means; each device once. Raises Failure."""
    found: dict[str, Place] = {}
    for name in names or ("auto",):
        for place in _meant(name, machine):
            found.setdefault(place.device.name, place)
    if per_machine is None:
        return tuple(found.values())
    return tuple(replace(place, per_machine=per_machine) for place in found.values())


def speeds(model: Model, device: Device, *, dtype: str, layout: Layout, calibrations: Iterable[Calibration]) -> Speeds:
    """What is known of an engine on the device: by the run nearest to the model, else by its data sheet.

    A run of another model or layout has the data sheet's error too, or its own where that is larger.
    """
    bare = unmeasured(model, device, dtype)
    found = applying(
        calibrations,
        device=device.name,
        model=identity(model, dtype),
        tensor=layout.tensor,
        pipeline=layout.pipeline,
    )
    if found is None:
        return bare
    run = found.calibration
    told = f"calibration of {run.date[:10]}"
    if found.is_exact:
        return Speeds(coefficients=found.coefficients, error=run.error, origin=told, dtype=dtype)
    other = f"{told} with {run.model.architecture} of {run.model.parameters / 1e9:.3g} B on TP {run.tensor}"
    return Speeds(coefficients=found.coefficients, error=max(run.error, bare.error), origin=other, dtype=dtype)


def _meant(name: str, machine: Machine) -> tuple[Place, ...]:
    if name == "all":
        return tuple(Place(device=device, per_machine=_usual(device)) for device in DEVICES)
    if name == "cpu":
        return (_cpu(machine),)
    if name == "auto":
        return (_here(machine),)
    try:
        device = find(name)
    except UnknownDevice as error:
        raise bad_input(f"--gpu: {error} (or: auto, cpu, all)") from None
    return (Place(device=device, per_machine=_usual(device)),)


def _cpu(machine: Machine) -> Place:
    dtype = "bf16" if "avx512f" in machine.cpu_features else "fp32"
    return Place(device=this_cpu(machine), per_machine=1, dtype=dtype)


def _here(machine: Machine) -> Place:
    if not machine.gpus:
        return _cpu(machine)
    device = here(machine)
    if device is None:
        raise bad_input(f"--gpu auto: the facts of {machine.gpus[0]} aren't known: name one that is like it with --gpu")
    return Place(device=device, per_machine=len(machine.gpus))


def _usual(device: Device) -> int:
    return 1 if device.name in ALONE else PER_MACHINE
