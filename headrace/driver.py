"""How does a fleet live on this machine, from the claim of its name to its last process?"""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from cluster import runs
from cluster.inventory import machine
from cluster.processes import identify
from cluster.runs import Run
from deployments import declare
from deployments.fleet import Fleet
from deployments.served_model import Model
from headrace import ask, diagnosis, leftovers
from headrace.checks import check_hardware, check_port
from headrace.door import asks_for_keys, check_open
from headrace.failure import Failure
from headrace.fitting import settled
from headrace.folders import run_folder, runs_folder
from headrace.interrupts import signals_interrupt
from headrace.local_ray import Live, local_ray
from headrace.serve_rest import ServeRefused
from headrace.source_folder import source_folder
from headrace.steps import Steps, Update
from headrace.stores import stored
from headrace.variant_quality import judged

LOOK_EVERY_S = 0.5
BREAK_S = 10.0
"""Seconds from a broken connection within which a dead Ray is known as such."""
LOG_VARIABLE = "HEADRACE_LOG"
"""Names the file that the output of a detached driver goes to."""
SAMPLE_QUESTION = "What is the capital of France? Answer in one sentence."
"""Without its second sentence the sample model's first token wins by 0.1 nats only: less than bfloat16's rounding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What `headrace serve` was asked for."""

    fleet: Fleet
    name: str
    question: str | None = None
    """Asked once the fleet is ready."""
    once: bool = False
    """End after the answer."""
    key: str | None = field(default=None, repr=False)
    """Where the fleet asks for one."""


def serve(wish: Wish, steps: Steps) -> None:
    """Serves until a signal comes; then nothing is left. Raises Failure, KeyboardInterrupt (before ready)."""
    with started(wish.fleet, wish.name, steps) as live:
        _serve(live, wish, steps)


@contextmanager
def started(wanted: Fleet, name: str, steps: Steps) -> Iterator[Live]:
    """A fleet that answers as long as the block runs; then nothing of it is left. Raises Failure, KeyboardInterrupt."""
    try:
        with signals_interrupt(), runs.claim(runs_folder(), name):
            leftovers.sweep(name, steps)
            with _recorded(wanted, name) as run:
                check_port(wanted.router)
                check_open(wanted, name)
                hardware = machine()
                fleet = stored(settled(fetched(wanted, steps), hardware), name)
                check_hardware(fleet, hardware)
                with local_ray(run, fleet, hardware, steps) as live:
                    _deploy(live, fleet, steps)
                    live.serving = True
                    yield live
    except runs.NameTaken:
        raise taken(name) from None


@contextmanager
def _recorded(fleet: Fleet, name: str) -> Iterator[Run]:
    """Keeps a record of the run as long as the block runs."""
    driver = identify(os.getpid())
    if driver is None:
        raise Failure("this process can't see itself in /proc: is /proc mounted?")
    router, run_id = fleet.router, secrets.token_hex(4)
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(router.host, router.host)
    run = Run(
        name=name,
        id=run_id,
        driver=driver,
        url=f"http://{host}:{router.port}",
        models=tuple(engine.name for engine in fleet.engines),
        folder=str(run_folder(run_id)),
        log=os.environ.get(LOG_VARIABLE),
        started_at_s=time.time(),
    )
    try:
        runs.write(runs_folder(), run)
        yield run
    finally:
        runs.forget(runs_folder(), run)


def fetched(fleet: Fleet, steps: Steps) -> Fleet:
    """The fleet with each source as a folder of this machine, and the quality of each variant. Raises Failure."""

    def source(engine: Model) -> dict[str, str]:
        folder = source_folder(engine.source, steps, about=f"{engine.name}: ")
        steps.say(f"✓ {engine.name} is here: {folder}")
        return {"source": str(folder.absolute())}

    return judged(fleet.with_engines(source), steps)


def _deploy(live: Live, fleet: Fleet, steps: Steps) -> None:
    with steps.step("Deploying", "Ready") as update:
        try:
            live.rest.deploy(declare.schema(fleet))
        except ServeRefused as error:
            live.check(timeout_s=BREAK_S if error.may_be_dying else 0.0)
            raise Failure(f"Serve refused the fleet: {error}") from None
        except httpx.HTTPError as error:
            live.check(timeout_s=BREAK_S)
            raise Failure(f"Serve broke off while it was given the fleet: {error}") from None
        while not _answers(live.run.url):
            live.check(timeout_s=LOOK_EVERY_S)
            _look(live, update)


def _look(live: Live, update: Update) -> None:
    applications = live.rest.applications()
    if failed := diagnosis.failures(applications):
        raise Failure("\n".join(failed))
    if states := diagnosis.states(applications):
        update(states)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=5.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _serve(live: Live, wish: Wish, steps: Steps) -> None:
    try:
        needs_key = asks_for_keys(wish.fleet, wish.name)
        request = None if needs_key and wish.key is None else _sample(live, wish)
        if wish.question is not None and request is not None:
            _ask(live, wish, request, steps)
        live.says_ready()
        steps.say(f"Try it:\n  {ask.curl(live.run.url, request, needs_key=needs_key)}")
        if not wish.once:
            steps.say(f"Serving {', '.join(live.run.models)} on {live.run.url}/v1 until {_ends(live.run)}")
            live.check(timeout_s=None)
    except ask.AnswerFailed as error:
        raise Failure(f"the question was not answered: {error}") from None
    except KeyboardInterrupt:
        steps.say("")


def _sample(live: Live, wish: Wish) -> ask.Sample:
    """What the first model answers."""
    return ask.sample(live.run.url, live.run.models[0], wish.question or SAMPLE_QUESTION, wish.key)


def _ends(run: Run) -> str:
    return f"`headrace stop --name {run.name}`" if run.log else "Ctrl-C"


def _ask(live: Live, wish: Wish, request: ask.Sample, steps: Steps) -> None:
    steps.say(f"> {wish.question}")
    if not request.streams:
        steps.say(ask.numbers(live.run.url, request, wish.key))
        return
    answer = ask.Answer()
    for text in ask.stream(live.run.url, request.body, answer, wish.key):
        steps.console.out(text, end="", highlight=False)
    steps.say(f"\n  {answer.figures}")


def taken(name: str) -> Failure:
    """What is said where a run of this name lives."""
    run = runs.read(runs_folder(), name)
    who = f"pid {run.driver.pid}, {run.url}" if run else "just starting"
    return Failure(
        f"run {name!r} is live ({who}): `headrace stop --name {name}` ends it, --name starts another beside it"
    )
