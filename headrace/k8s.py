"""What does `headrace k8s render` write: which fleet, for which place, with which models?"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from deployments.fleet import Fleet, Model
from deployments.manifests import CACHE, MADE, PLACES, Unfit
from deployments.manifests import render as rendered
from headrace.door import check_open
from headrace.failure import Failure, bad_input
from headrace.fetching import MADE_HERE
from headrace.fetching.hub import is_hub_id
from headrace.serve import fleet_for
from headrace.variant_quality import check_qualities

SETTLE_S = 10.0
"""At least: Kubernetes sees two failing probes after 4 s, and tells every node."""
KUSTOMIZATION = "kustomization.yaml"


def render(what: str | None, *, overlay: str, out: str) -> None:
    """Writes the manifests of a fleet; what only a former fleet needed is cleared away. Raises Failure."""
    place = PLACES.get(overlay)
    if place is None:
        raise bad_input(f"--overlay: should be one of {', '.join(PLACES)}, got {overlay!r}")
    try:
        fleet, fetched = in_pods(fleet_for(what, [], port=None, host=None))
        files = {Path(out, name): text for name, text in rendered(fleet, place, fetched).items()}
    except Unfit as error:
        raise bad_input(str(error)) from None
    check_open(fleet, None)
    former = {file for path in files if path.name == KUSTOMIZATION for file in _made(path)}
    for path, text in files.items():
        with _refusal_of(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        print(f"wrote {path}")
    for path in sorted(former - files.keys()):
        with _refusal_of(path):
            path.unlink()
        print(f"removed {path}")
    print(f"next: kubectl apply -k {Path(out, 'overlays', place.name)}")


def in_pods(fleet: Fleet) -> tuple[Fleet, dict[str, str]]:
    """The fleet as it runs in pods, and what they fetch for each model. Raises Failure."""
    check_qualities(fleet)
    fetched = {engine.name: engine.source for engine in fleet.engines if _is_fetched(engine)}
    there = {name: {"source": f"{CACHE}/models/{source.replace('/', '--')}"} for name, source in fetched.items()}
    fleet = fleet.with_engines(lambda engine: dict(there.get(engine.name, {})))
    router = {"host": "0.0.0.0", "settle_s": max(fleet.router.settle_s, SETTLE_S)}
    return fleet.model_copy(update={"router": fleet.router.model_copy(update=router)}), fetched


def _is_fetched(model: Model) -> bool:
    if model.source in MADE_HERE or is_hub_id(model.source):
        return True
    if Path(model.source).is_relative_to(CACHE):
        return False
    raise bad_input(
        f"{model.name}: source should be {', '.join(MADE_HERE)}, a hub id (owner/name) or a folder below {CACHE}, "
        f"where pods have the volume with the models, got {model.source!r}"
    )


def _made(kustomization: Path) -> list[Path]:
    """What a former render wrote beside this file and named in it. What a user wrote, or copied, is not among that."""
    try:
        text = kustomization.read_text()
        named = yaml.safe_load(text)["resources"] if text.startswith(MADE) else []
        files = [kustomization.with_name(name) for name in named if Path(name).name == name]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return []
    return [file for file in files if file.is_file() and file.read_bytes().startswith(MADE.encode())]


@contextmanager
def _refusal_of(path: Path) -> Iterator[None]:
    """Raises Failure where the system refuses something with a file."""
    try:
        yield
    except OSError as error:
        raise Failure(f"{path}: {(error.strerror or str(error)).lower()}") from None
