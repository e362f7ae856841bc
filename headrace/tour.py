"""What does `headrace tour` do? It plans, compresses, serves, asks and simulates the sample model, and tells it all."""

from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from rich.console import Console

from cluster import runs
from cluster.inventory import machine
from deployments.fleet import Fleet, RouterSettings
from headrace import driver, tour_files, tour_steps
from headrace.checks import check_port
from headrace.folders import runs_folder
from headrace.interrupts import signals_interrupt
from headrace.local_ray import Live
from headrace.serve import check_run_name, fleet_for
from headrace.steps import Steps
from headrace.tour_files import TourFolder
from headrace.tour_words import Telling


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """As typed."""

    out: str
    port: int
    name: str
    keep: bool


def tour(options: Options) -> None:
    """The whole tour. Raises Failure, KeyboardInterrupt; the fleet ends with it, and what is finished is kept."""
    check_run_name(options.name)
    folder = TourFolder(Path(options.out).expanduser().absolute())
    _check_free(options)
    folder.begin()
    told = Telling(folder, Steps(Console(highlight=False)))
    with signals_interrupt():
        try:
            _walk(options, folder, told)
        except KeyboardInterrupt:
            told.interrupted()
            raise


def _check_free(options: Options) -> None:
    """Raises Failure where the fleet could not start: known now, and not after minutes of compressing."""
    run = runs.read(runs_folder(), options.name)
    if run is not None and runs.lives(run):
        raise driver.taken(options.name)
    check_port(RouterSettings(port=options.port))


def _walk(options: Options, folder: TourFolder, told: Telling) -> None:
    steps = told.steps
    told.hello()
    told.step("plan", lambda: tour_steps.planned(steps.console))
    made = told.step("compress", lambda: tour_steps.compressed(folder, machine(), steps))
    told.heading("serve")
    begun_s = monotonic()
    with driver.started(_fleet(options, folder, made["scheme"]), options.name, steps) as live:
        live.says_ready()
        alone = tour_steps.answered(live, steps)
        answered_by = {words: prompt.answer.variant for words, prompt in alone.items()}
        told.keep("serve", {"ready_s": monotonic() - begun_s, "answered_by": answered_by})
        told.step("prompts", lambda: tour_steps.prompted(live, folder, list(alone.values()), steps))
        load = tour_steps.simulation(folder)
        told.step("simulate", lambda: tour_steps.simulated(load, steps.console), scale=f"{load.scale:g}")
        told.goodbye()
        if options.keep:
            _serve_on(live, steps)


def _fleet(options: Options, folder: TourFolder, variant: str) -> Fleet:
    folder.write(folder.fleet, tour_files.fleet(folder.artefact, variant, options.port))
    return fleet_for(str(folder.fleet), [], port=None, host=None)


def _serve_on(live: Live, steps: Steps) -> None:
    try:
        steps.say(f"Serving {tour_files.MODEL} on {live.run.url}/v1 until Ctrl-C")
        live.check(timeout_s=None)
    except KeyboardInterrupt:
        steps.say("")
