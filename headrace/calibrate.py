"""What does `headrace calibrate` do: time the engine of a fleet, keep what was learned, show it?"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from cluster.calibration import BadCalibration, Calibration, Residual, from_json, quantile, to_json
from cluster.config_keys import UnknownModel
from cluster.device_facts import DEVICES, of_driver, this_cpu
from cluster.devices import Device
from cluster.inventory import Machine, machine
from cluster.model_config import read
from cluster.tensors import UnreadableCheckpoint
from deployments.declare import engines_at_most
from deployments.served_model import Model, Replicas
from headrace.checks import check_hardware
from headrace.failure import Failure, bad_input
from headrace.fitting import settled
from headrace.folders import state_folder
from headrace.model_source import chosen
from headrace.serve import fleet_for
from headrace.source_folder import source_folder
from headrace.steps import Steps
from headrace.traffic_check import TrafficCheck
from headrace.whole_file import write_whole

BUSY = 0.5
"""Share of the cores at work before anything was started, from which on the user is warned."""


def calibrations_folder() -> Path:
    """One file for each device and model."""
    return state_folder() / "calibrations"


def stored() -> tuple[Calibration, ...]:
    """Every calibration that was kept. Raises Failure where a file holds none."""
    found = []
    for path in sorted(calibrations_folder().glob("*.json")):
        try:
            found.append(from_json(path.read_text()))
        except (BadCalibration, OSError, UnicodeDecodeError) as error:
            raise Failure(f"{path}: {error}") from None
    return tuple(found)


def calibrate(what: str | None, engine: list[str], *, model: str | None, output: str | None, check: bool) -> None:
    """Times the engine of one model of a fleet, or of each. Raises Failure."""
    fleet, steps, hardware = fleet_for(what, engine, port=None, host=None), Steps(Console(highlight=False)), machine()
    models = chosen(fleet, model)
    if output is not None and len(models) > 1:
        raise bad_input(f"--output holds one model's figures, the fleet has {len(models)}: name one with --model")
    sharers = engines_at_most(fleet)
    device = _device(hardware, sharers)
    _warn_if_busy(hardware, steps)
    for each in [_fetched(model, steps) for model in models]:
        fleet = settled(fleet.model_copy(update={"models": [each]}), hardware)
        check_hardware(fleet, hardware)
        path = Path(output) if output else calibrations_folder() / f"{device.name}-{each.name}.json"
        calibration = _calibrated(each, device, sharers, check, steps)
        _write(path, calibration)
        _show(calibration, path, steps)


def _device(hardware: Machine, sharers: int) -> Device:
    """What one replica runs on: a GPU, or its share of the cores."""
    if not hardware.gpus:
        return this_cpu(replace(hardware, cores=max(1, hardware.cores // sharers)))
    if (device := of_driver(hardware.gpus[0])) is None:
        known = ", ".join(device.name for device in DEVICES)
        raise Failure(f"the facts of this GPU are not known ({hardware.gpus[0]}); known: {known}")
    return device


def _warn_if_busy(hardware: Machine, steps: Steps) -> None:
    if (load := os.getloadavg()[0]) > BUSY * hardware.cores:
        busy = f"this machine is busy (load {load:.1f} on {hardware.cores} cores)"
        steps.say(f"! {busy}: loads that it disturbs are sent again, up to 4 times")


def _calibrated(model: Model, device: Device, sharers: int, check: bool, steps: Steps) -> Calibration:
    from deployments.calibrate import calibrate as measured
    from deployments.vllm_start import EngineFailed

    date = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        shape = read(Path(model.source))
        with _bar(model.name, steps) as tell:
            traffic = TrafficCheck(lambda load: tell(None, None, load))
            between = traffic.measure if check else lambda engine: None
            found = measured(model, shape, device, sharers=sharers, date=date, tell=tell, between=between)
    except (EngineFailed, UnknownModel, UnreadableCheckpoint) as error:
        raise Failure(f"{model.name}: {error}") from None
    return replace(found, checks=tuple(traffic.residuals(found, shape, device)))


def _fetched(model: Model, steps: Steps) -> Model:
    """One replica of a model, with its source as a local folder."""
    folder = source_folder(model.source, steps, about=f"{model.name}: ")
    return model.model_copy(update={"source": str(folder.absolute()), "replicas": Replicas()})


@contextmanager
def _bar(name: str, steps: Steps) -> Iterator[Callable[[int | None, int | None, str], None]]:
    """A function that draws how many loads are done, of how many (None: as before), and what comes next: a bar on a
    terminal, one line elsewhere.
    """
    terminal = steps.console.is_terminal
    if not terminal:
        steps.say(f"  {name}: starting the engine and timing it ...")
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=steps.console, transient=True, disable=not terminal) as progress:
        task = progress.add_task(f"{name}: starting the engine", total=None)
        yield lambda done, total, what: progress.update(
            task, description=f"{name}: {what}", completed=done, total=total
        )


def _write(path: Path, calibration: Calibration) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, to_json(calibration))
    except OSError as error:
        raise Failure(f"can't write {path}: {error.strerror}") from None


def _show(calibration: Calibration, path: Path, steps: Steps) -> None:
    steps.console.print(_table("load", calibration.residuals))
    half, most = (quantile(calibration.residuals, share) for share in (0.5, 0.9))
    found = calibration.coefficients
    steps.say(
        f"✓ {calibration.points} loads: half within {half:.1%}, nine of ten within {most:.1%} of the formula\n"
        f"  reached: {found.compute:.0%} of the operations, {found.bandwidth:.0%} of the bandwidth for weights, "
        f"{found.kv_bandwidth:.0%} for the cache; a step costs {found.step_s * 1e3:.2f} ms beside them"
    )
    if calibration.checks:
        steps.console.print(_table("traffic, not fitted", calibration.checks))
        most, worst = (quantile(calibration.checks, share) for share in (0.9, 1.0))
        steps.say(f"✓ foreseen: nine of ten of these figures within {most:.1%}, all within {worst:.1%}")
    steps.say(f"  kept in {path}")


def _table(heading: str, residuals: Iterable[Residual]) -> Table:
    table = Table(heading, box=None, pad_edge=False)
    for name in ("measured ms", "predicted ms", "error"):
        table.add_column(name, justify="right")
    for residual in residuals:
        error = residual.predicted_s / residual.measured_s - 1
        table.add_row(
            residual.point, f"{residual.measured_s * 1e3:.2f}", f"{residual.predicted_s * 1e3:.2f}", f"{error:+.1%}"
        )
    return table
