"""How does a run get a Ray of its own on this machine, and how does it end without leaving anything?"""

import os
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from cluster import launch, runs
from cluster.inventory import Machine
from cluster.processes import end_run, first_gone, identify
from cluster.runs import Run
from deployments.declare import logical_cpus
from deployments.fleet import Fleet
from headrace.failure import Failure
from headrace.folders import made, runs_folder
from headrace.kept_logs import keep_logs
from headrace.serve_rest import ServeRest, of_run
from headrace.steps import Steps

DRAIN_S = 10.0
"""Seconds that streams in flight get when a run is asked to end."""
KEEPER_PATIENCE_S = 15.0


@dataclass(slots=True)
class Live:
    """A run whose Ray has been started."""

    run: Run
    rest: ServeRest
    keeper: subprocess.Popen[bytes]
    serving: bool = False
    """Whether there may be streams to wait for at the end."""

    def check(self, timeout_s: float | None) -> None:
        """Waits for so long (None: for ever). Raises Failure as soon as Ray is gone."""
        keeper = self.run.keeper
        if keeper is None or first_gone((keeper,), timeout_s):
            raise Failure(f"Ray ended unexpectedly: {_last_words(self.run)}")

    def says_ready(self) -> None:
        """Records that the fleet answers."""
        self.run = replace(self.run, ready=True)
        runs.write(runs_folder(), self.run)


@contextmanager
def local_ray(run: Run, fleet: Fleet, machine: Machine, steps: Steps) -> Iterator[Live]:
    """Starts Ray for a run, and ends the whole run when the block ends, however that is. Raises Failure."""
    with made(Path(run.folder)):
        live = _start(run, fleet, machine)
        try:
            with steps.step("Starting Ray", f"Ray runs on loopback, {_cpus(fleet, machine)}"):
                while not live.rest.is_up():
                    live.check(timeout_s=0.2)
            yield live
        except Failure as failure:
            raise Failure(f"{failure}\nlogs: {keep_logs(run)}", exit_code=failure.exit_code) from None
        finally:
            _end(live, steps)
            live.rest.close()


def _start(run: Run, fleet: Fleet, machine: Machine) -> Live:
    ports = launch.free_ports(random.Random())
    launch.write_token(run.token)
    folder, cpus = Path(run.folder), max(machine.cores, logical_cpus(fleet))
    keeper = launch.start(
        launch.ray_command(ports, folder=folder, cpus=cpus, gpus=len(machine.gpus)),
        run_id=run.id,
        folder=folder,
        environment=launch.environment(_own_environment(), run_id=run.id, token=run.token, ports=ports),
    )
    url = f"http://127.0.0.1:{ports.dashboard}"
    run = replace(run, keeper=identify(keeper.pid), dashboard_url=url)
    runs.write(runs_folder(), run)
    return Live(run=run, rest=of_run(run), keeper=keeper)


def _own_environment() -> dict[str, str]:
    """This process's environment, with the packages' folder where they are not installed."""
    environment = dict(os.environ)
    try:
        distribution("headrace")
    except PackageNotFoundError:
        folders = [str(Path(__file__).parent.parent), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(folder for folder in folders if folder)
    return environment


def _cpus(fleet: Fleet, machine: Machine) -> str:
    logical = logical_cpus(fleet)
    if logical <= machine.cores:
        return f"{machine.cores} cores"
    return f"{logical} logical CPUs on {machine.cores} cores, which engines share"


def _end(live: Live, steps: Steps) -> None:
    at_once = False
    try:
        if live.serving:
            _drain(live, steps)
    except KeyboardInterrupt:
        at_once = True
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with steps.step("Ending Ray", "Everything ended"):
        if not at_once:
            live.keeper.terminate()
            with suppress(subprocess.TimeoutExpired):
                live.keeper.wait(KEEPER_PATIENCE_S)
        left = end_run(live.run.id, grace_s=0)
    if left:
        steps.say(f"! can't be ended: pids {' '.join(str(process.pid) for process in left)}")


def _drain(live: Live, steps: Steps) -> None:
    with steps.step("Finishing what is in flight (Ctrl-C again: at once)", "Application ended"):
        ended = live.rest.delete(DRAIN_S)
    if not ended:
        steps.say(f"! streams still open after {DRAIN_S:.0f} s are cut")


def _last_words(run: Run) -> str:
    """Which of its processes `ray start` found dead, in its own words."""
    lines = (Path(run.folder) / "ray.log").read_text(errors="replace").splitlines()
    found = [i for i, line in enumerate(lines) if "exited unexpectedly" in line]
    words = [line.partition(" -- ")[2] or line for line in lines[found[-1] + 1 : found[-1] + 2]] if found else []
    return " ".join(words).strip() or "it was ended from outside"
