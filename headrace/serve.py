"""What does `headrace serve` do: which fleet is meant, and does it run here or in the background?"""

import os
import re
from pathlib import Path
from typing import Any

from rich.console import Console

from deployments import engine_arguments
from deployments.fleet import FileError, Fleet, load, validate
from headrace.ask import KEY_VARIABLE
from headrace.door import key_for
from headrace.engine_options import engine_options
from headrace.failure import bad_input
from headrace.steps import Steps

FLEET_FILE = "fleet.yaml"
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def serve(
    what: str | None,
    engine: list[str],
    *,
    port: int | None,
    host: str | None,
    question: str | None,
    once: bool,
    advise: bool,
    detach: bool,
    key: str | None,
    name: str,
) -> None:
    """Serves a fleet file or one model, here or in the background. Raises Failure."""
    if once and question is None:
        raise bad_input("--once goes with --ask: what should be asked?")
    if once and detach:
        raise bad_input("--once ends after the answer, --detach goes on: take one of them")
    check_run_name(name)
    fleet = fleet_for(what, engine, port=port, host=host, advise=advise)
    key = key_for(fleet, key, asks=question is not None, name=name)
    steps = Steps(Console(highlight=False))
    if detach:
        from headrace.detach import detach as into_background

        into_background(name, steps)
    else:
        from headrace.driver import Wish
        from headrace.driver import serve as drive

        os.environ.pop(KEY_VARIABLE, None)  # it is no business of engines
        drive(Wish(fleet=fleet, name=name, question=question, once=once, key=key), steps)


def check_run_name(name: str) -> None:
    """Raises Failure for what can't name a run."""
    if not RUN_NAME.fullmatch(name):
        raise bad_input(f"--name: should be letters, digits, '.', '_' and '-', got {name!r}")


def fleet_for(
    what: str | None, engine: list[str], *, port: int | None, host: str | None, advise: bool = False
) -> Fleet:
    """The fleet that the command line means. Raises Failure."""
    try:
        if what is None or what.endswith((".yaml", ".yml")):
            if engine:
                raise bad_input("engine arguments after -- go with a MODEL; in a file write them under `engine`")
            fleet = load(_fleet_file(what))
        else:
            fleet = validate(_one_model(what, engine))
        engine_arguments.check(fleet)
        return _advised(_listening(fleet, port=port, host=host), advise)
    except FileError as error:
        raise bad_input(str(error)) from None


def model_name(source: str) -> str:
    """What clients call a model that was given by its source alone."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", source.rstrip("/").rpartition("/")[2]).lstrip("._-") or "model"


def _fleet_file(what: str | None) -> Path:
    if what is None and not Path(FLEET_FILE).exists():
        raise bad_input(
            f"what should be served? There is no {FLEET_FILE} here: name a model (`headrace serve smollm2`), "
            "or `headrace init` writes a file"
        )
    return Path(what or FLEET_FILE)


def _one_model(source: str, engine: list[str]) -> dict[str, Any]:
    return {"models": [{"name": model_name(source), "source": source, "engine": engine_options(engine)}]}


def _listening(fleet: Fleet, *, port: int | None, host: str | None) -> Fleet:
    given = {key: value for key, value in (("port", port), ("host", host)) if value is not None}
    return fleet.model_copy(update={"router": fleet.router.model_copy(update=given)})


def _advised(fleet: Fleet, advise: bool) -> Fleet:
    return fleet.model_copy(update={"scaling": fleet.scaling.model_copy(update={"advise": True})}) if advise else fleet
