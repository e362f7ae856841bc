"""How does a run get a Ray of its own on this machine, and how does it end without leaving anything?"""

import os
import random
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from cluster import launch, runs
from cluster.inventory import Machine
from cluster.processes import Process, end_run, first_gone, identify
from cluster.runs import Run
from deployments.declare import logical_cpus
from deployments.fleet import Fleet
from headrace.failure import Failure
from headrace.folders import make_run_folder, runs_folder
from headrace.kept_logs import keep_logs
from headrace.serve_rest import ServeRest
from headrace.steps import Steps

DRAIN_S = 10.0
"""Seconds that streams in flight get when a run is asked to end."""
KEEPER_PATIENCE_S = 15.0


@dataclass(slots=True)
class Live:
    """A run whose Ray answers."""

    run: Run
    rest: ServeRest
    keeper: Process
    serving: bool = False
    """Whether there may be streams to wait for at the end."""

    def record(self, run: Run) -> None:
        """Writes down what has become known of the run."""
        self.run = run
        runs.write(runs_folder(), run)

    def check(self, timeout_s: float | None) -> None:
        """Waits for so long (None: for ever). Raises Failure as soon as Ray is gone."""
        if first_gone((self.keeper,), timeout_s):
            raise Failure(f"Ray ended unexpectedly: {_last_words(self.run)}")


@contextmanager
def local_ray(fleet: Fleet, name: str, machine: Machine, steps: Steps) -> Iterator[Live]:
    """Starts Ray for one run, and ends the whole run when the block ends, however that is. Raises Failure."""
    run = _prepare(fleet, name)
    ports = launch.free_ports(random.Random())
    folder = Path(run.folder)
    command = launch.ray_command(
        ports, folder=folder, cpus=max(machine.cores, logical_cpus(fleet)), gpus=len(machine.gpus)
    )
    environment = launch.environment(_own_environment(), run_id=run.id, token=run.token, ports=ports)
    keeper = launch.start(command, run_id=run.id, folder=folder, environment=environment)
    run = replace(run, keeper=identify(keeper.pid), dashboard_url=f"http://127.0.0.1:{ports.dashboard}")
    live = Live(run=run, rest=ServeRest(run.dashboard_url or "", run.token), keeper=_known(keeper))
    try:
        live.record(run)
        with steps.step("Starting Ray", f"Ray runs on loopback, {_cpus(fleet, machine)}"):
            while not live.rest.is_up():
                live.check(timeout_s=0.2)
        yield live
    except Failure as failure:
        kept = keep_logs(live.run)
        raise Failure(f"{failure}\nlogs: {kept}", exit_code=failure.exit_code) from None
    finally:
        _end(live, keeper, steps)


def _prepare(fleet: Fleet, name: str) -> Run:
    driver = identify(os.getpid())
    if driver is None:
        raise Failure("this process can't see itself in /proc: is /proc mounted?")
    run_id = secrets.token_hex(4)
    folder = make_run_folder(run_id)
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(fleet.router.host, fleet.router.host)
    run = Run(
        name=name,
        id=run_id,
        driver=driver,
        url=f"http://{host}:{fleet.router.port}",
        models=tuple(model.name for model in fleet.models),
        folder=str(folder),
        log=os.environ.get("HEADRACE_LOG"),
        started_at_s=time.time(),
    )
    launch.write_token(run.token)
    return run


def _own_environment() -> dict[str, str]:
    """This process's environment, with the packages' folder where they are not installed."""
    environment = dict(os.environ)
    try:
        distribution("headrace")
    except PackageNotFoundError:
        folders = [str(Path(__file__).parent.parent), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(folder for folder in folders if folder)
    return environment


def _known(keeper: subprocess.Popen[bytes]) -> Process:
    return identify(keeper.pid) or Process(pid=keeper.pid, started_ticks=0)


def _cpus(fleet: Fleet, machine: Machine) -> str:
    logical = logical_cpus(fleet)
    if logical <= machine.cores:
        return f"{machine.cores} cores"
    return f"{logical} logical CPUs on {machine.cores} cores, which engines share"


def _end(live: Live, keeper: subprocess.Popen[bytes], steps: Steps) -> None:
    with suppress(KeyboardInterrupt):
        if live.serving:
            _drain(live, steps)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with steps.step("Ending Ray", "Everything ended"):
        keeper.terminate()
        with suppress(subprocess.TimeoutExpired):
            keeper.wait(KEEPER_PATIENCE_S)
        left = end_run(live.run.id, grace_s=0)
    if left:
        steps.say(f"! can't be ended: pids {', '.join(str(process.pid) for process in left)}")
    shutil.rmtree(live.run.folder, ignore_errors=True)
    runs.forget(runs_folder(), live.run)


def _drain(live: Live, steps: Steps) -> None:
    with steps.step("Finishing what is in flight (Ctrl-C again: at once)", "Application ended"):
        ended = live.rest.delete(DRAIN_S)
    if not ended:
        steps.say(f"! streams still open after {DRAIN_S:.0f} s are cut")


def _last_words(run: Run) -> str:
    """What `ray start` wrote about its end."""
    lines = (Path(run.folder) / "ray.log").read_text(errors="replace").splitlines()
    lines = [line.strip() for line in lines if line.strip()]
    marks = [i for i, line in enumerate(lines) if "exited unexpectedly" in line]
    if marks:
        return "; ".join(_message(line) for line in lines[marks[-1] + 1 : marks[-1] + 2])
    return _message(lines[-1]) if lines else "it wrote nothing"


def _message(line: str) -> str:
    return line.partition(" -- ")[2] or line
