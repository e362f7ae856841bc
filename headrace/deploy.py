"""What does `headrace deploy` do: how does a fleet that runs become another, and what if that fails?"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
from pydantic import ValidationError
from rich.console import Console

from cluster import runs
from cluster.inventory import machine
from cluster.placement import NoRoom, Placed, Undecided
from deployments import declare
from deployments.declare import APPLICATION
from deployments.fleet import Fleet
from deployments.wishes import ROUTERS, room_for_least
from headrace import diagnosis
from headrace.checks import check_hardware, check_port
from headrace.cluster_head import Head, head
from headrace.door import check_open
from headrace.driver import fetched
from headrace.failure import INTERRUPTED, Failure, bad_input
from headrace.fetching import MADE_HERE
from headrace.fitting import settled
from headrace.fleet_changes import changes, effects
from headrace.folders import runs_folder
from headrace.serve import fleet_for
from headrace.serve_rest import ServeRefused
from headrace.steps import Steps, Update
from headrace.stores import check_shared, stored
from headrace.variant_quality import check_qualities

LOOK_EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What the command line says."""

    file: str | None
    name: str
    address: str | None
    token_file: str | None
    only_diff: bool
    dry: bool
    patience_s: float
    nodes_may_come: bool
    """The cluster's own autoscaler brings what is missing."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """What Serve runs by files, as it was told."""

    config: list[dict[str, Any]]
    """Every application, others than ours too."""
    fleet: Fleet | None
    """Ours; None when there is none."""
    at_s: float
    """When ours was deployed, by Serve's clock."""
    running: bool


def command(wish: Wish) -> None:
    """Makes a cluster serve what the file says. Raises Failure."""
    steps = Steps(Console(highlight=False))
    fleet = fleet_for(wish.file, [], port=None, host=None)
    where = head(wish.name, wish.address, wish.token_file)
    before = deployed(where)
    _check_listening(before.fleet, fleet, where)
    fleet = _placed(fleet, where, steps)
    if not _tell(before, fleet, where, steps) or wish.only_diff:
        return
    if not wish.nodes_may_come:
        _check_room(fleet, where, steps, update=before.fleet is not None)
    if wish.dry:
        steps.say("Nothing was changed (--dry-run).")
        return
    with _told_of_interrupt(where):
        _update(where, before, fleet, steps, wish.patience_s)
    if where.run is not None:
        _record(where.run, fleet)


def deployed(where: Head) -> Deployed:
    """What runs there now. Raises Failure when our application is not one that this version can read."""
    try:
        found = where.rest.details()
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise Failure(f"Serve does not tell what runs at {where.where}: {error!r}") from None
    config = [one["deployed_app_config"] for one in found.values() if one.get("deployed_app_config")]
    if (ours := found.get(APPLICATION)) is None or not ours.get("deployed_app_config"):
        return Deployed(config, None, 0.0, running=False)
    try:
        fleet = Fleet.model_validate(ours["deployed_app_config"]["args"])
    except ValidationError:
        raise Failure(
            f"what runs at {where.where} was deployed by another version of Headrace; its settings are not known here"
        ) from None
    return Deployed(config, fleet, ours["last_deployed_time_s"], running=ours["status"] == "RUNNING")


def _check_listening(before: Fleet | None, fleet: Fleet, where: Head) -> None:
    """Old and new routers hold their sockets at the same time."""
    if before is not None and before.router.host != fleet.router.host:
        raise bad_input(
            f"router.host: can't change from {before.router.host} to {fleet.router.host} while the fleet runs"
        )
    check_open(fleet, where.run.name if where.run is not None else None)
    if where.run is not None and (before is None or before.router.port != fleet.router.port):
        check_port(fleet.router)


def _placed(fleet: Fleet, where: Head, steps: Steps) -> Fleet:
    """The fleet as the cluster's nodes will read it: on this machine with sources as folders, checked."""
    if where.run is not None:
        hardware = machine()
        fleet = stored(settled(fetched(fleet, steps), hardware), where.run.name)
        check_hardware(fleet, hardware)
        return fleet
    check_qualities(fleet)
    for model in fleet.engines:
        if model.source in MADE_HERE:
            raise bad_input(
                f"{model.name}: source: the sample {model.source!r} is fetched to this machine only; "
                "give a folder that every node has, or owner/name"
            )
        if model.tensor_parallel == "auto":
            raise bad_input(f"{model.name}: tensor_parallel: the nodes' GPUs are not known here: give a number")
    return fleet


def _tell(before: Deployed, fleet: Fleet, where: Head, steps: Steps) -> bool:
    """Says what will change; False when nothing will."""
    if before.fleet == fleet and before.running:
        steps.say(f"{where.where} serves that already: nothing to change")
        return False
    for change in changes(before.fleet, fleet) if before.fleet else []:
        steps.say(f"  {change}")
    for effect in effects(before.fleet, fleet):
        steps.say(f"- {effect}")
    return True


def _check_room(fleet: Fleet, where: Head, steps: Steps, *, update: bool) -> None:
    """An engine or router for which no node has room would be waited for without an end. Raises Failure."""
    try:
        nodes = where.rest.nodes()
    except (httpx.HTTPError, KeyError, TypeError, ValueError):
        return
    check_shared(fleet, len(nodes))
    try:
        found = room_for_least(fleet, nodes, update=update)
    except NoRoom as error:
        raise bad_input(f"{where.where} has no room for the fleet: {error} (--nodes-may-come: they will)") from None
    except Undecided:
        return
    if len(nodes) > 1:
        for line in _places(found):
            steps.say(f"- {line}")


def _places(found: Sequence[Placed]) -> Iterator[str]:
    """A line for each model that has replicas; where they will lie is for Ray to say."""
    nodes: dict[str, dict[str, None]] = {}
    for placed in found:
        nodes.setdefault(placed.name, {}).update(dict.fromkeys(placed.nodes))
    for name, names in nodes.items():
        if name != ROUTERS:
            yield f"{name} has room, such as on {', '.join(names)}"


def _update(where: Head, before: Deployed, fleet: Fleet, steps: Steps, patience_s: float) -> None:
    """Deploys, waits, and brings back what ran before when that fails. Raises Failure."""
    others = [config for config in before.config if config["name"] != APPLICATION]
    schema = declare.schema(fleet)
    try:
        with steps.step("Deploying", f"{where.where} serves what the file says") as update:
            _put(where, schema | {"applications": [*others, *schema["applications"]]})
            _wait(where, before.at_s, update, patience_s)
    except Failure as failure:
        if before.fleet is None:
            raise
        steps.say(f"! {failure}")
        _roll_back(where, schema | {"applications": before.config}, steps, patience_s)
        raise Failure("the update failed, and what ran before runs again") from None


def _roll_back(where: Head, schema: dict[str, Any], steps: Steps, patience_s: float) -> None:
    at_s = deployed(where).at_s
    try:
        with steps.step("Bringing back what ran before", "It runs again") as update:
            _put(where, schema)
            _wait(where, at_s, update, patience_s)
    except Failure as failure:
        raise Failure(f"the update failed, and what ran before did not come back: {failure}") from None


def _put(where: Head, schema: dict[str, Any]) -> None:
    try:
        where.rest.deploy(schema)
    except ServeRefused as error:
        raise Failure(f"Serve refused the fleet: {error}") from None
    except httpx.HTTPError as error:
        raise Failure(f"Serve broke off while it was given the fleet: {error!r}") from None


def _wait(where: Head, before_s: float, update: Update, patience_s: float) -> None:
    """Returns when what was put since then runs. Raises Failure when it can't."""
    end_s = time.monotonic() + patience_s
    while time.monotonic() < end_s:
        applications = where.rest.applications()
        if (ours := applications.get(APPLICATION)) is not None and ours["last_deployed_time_s"] > before_s:
            if ours["status"] == "RUNNING":
                return
            if ours["status"] == "DEPLOY_FAILED":
                raise Failure("\n".join(diagnosis.failures({APPLICATION: ours})) or ours["message"])
            if states := diagnosis.states({APPLICATION: ours}):
                update(states)
        time.sleep(LOOK_EVERY_S)
    raise Failure(f"not done after {patience_s:.0f} s (--timeout)")


@contextmanager
def _told_of_interrupt(where: Head) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        said = f"the update goes on at {where.where}; `headrace deploy` with the former file takes it back"
        raise Failure(said, exit_code=INTERRUPTED) from None


def _record(run: runs.Run, fleet: Fleet) -> None:
    """Lets the other commands know what the run serves now."""
    host, _, _ = run.url.rpartition(":")
    models = tuple(engine.name for engine in fleet.engines)
    runs.write(runs_folder(), replace(run, url=f"{host}:{fleet.router.port}", models=models))
