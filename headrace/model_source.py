"""Which model does a command mean, and what is it made of? Nothing of its weights is loaded or downloaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster import tensors as checkpoint
from cluster.config_keys import UnknownModel, open_config
from cluster.model import Model
from cluster.model_config import describe
from cluster.tensors import Tensor, UnreadableCheckpoint
from deployments import fleet as fleet_file
from headrace.failure import bad_input
from headrace.fetching import MADE_HERE, FetchError, cache, resolve
from headrace.fetching.progress import Progress, say_nothing, shown_on
from headrace.folders import artefacts_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """A model as its files describe it."""

    name: str
    """As it was asked for."""
    model: Model
    config: dict[str, Any]
    """config.json."""
    tensors: tuple[Tensor, ...]
    origin: str
    """Where the tensors' shapes come from, in words."""


def described(source: str, *, progress: Progress = say_nothing) -> Described:
    """The model of a fetched name, a folder (config.json alone is enough), an artefact or a hub id.

    What was fetched before is read from the cache; of a hub only config.json and headers come. Raises FetchError.
    """
    try:
        if (folder := _folder(source, progress)) is not None:
            return from_folder(source, folder)
        from headrace import plan_hub

        config, tensors = plan_hub.headers(source)
        return _described(source, config, tensors, "the headers of its files on the hub")
    except (UnknownModel, UnreadableCheckpoint) as error:
        raise FetchError(_about(source, str(error))) from None


def asked(option: str, source: str) -> Described:
    """The model that an option names, with progress shown. Raises Failure."""
    try:
        with shown_on(Console(stderr=True)) as progress:
            return described(source, progress=progress)
    except FetchError as error:
        raise bad_input(f"{option}: {error}") from None


def chosen(fleet: fleet_file.Fleet, name: str | None) -> list[fleet_file.Model]:
    """Of a fleet, the model that --model names, or all of them. Raises Failure."""
    found = [model for model in fleet.models if name in (None, model.name)]
    if not found:
        raise bad_input(f"--model: should be one of {', '.join(model.name for model in fleet.models)}, got {name!r}")
    return found


def from_folder(name: str, folder: Path) -> Described:
    """The model in a folder. Raises UnknownModel, UnreadableCheckpoint."""
    config = open_config(folder)
    if any(folder.glob("*.safetensors*")):
        return _described(name, config, checkpoint.read(folder), "the headers of its files")
    from headrace import plan_shapes

    return _described(name, config, plan_shapes.imagined(folder), "config.json and transformers' own shapes")


def _described(name: str, config: dict[str, Any], tensors: tuple[Tensor, ...], origin: str) -> Described:
    return Described(name=name, model=describe(config, tensors), config=config, tensors=tensors, origin=origin)


def _folder(source: str, progress: Progress) -> Path | None:
    """Where the model lies on this machine; None where only a hub can have it. Raises FetchError."""
    if source in MADE_HERE:
        return resolve(source, progress=progress)
    folder, artefact = Path(source).expanduser(), artefacts_folder() / source
    fetched = cache.place(source.replace("/", "--"))
    if source and folder.is_dir():
        return folder
    if source and source == folder.name and artefact.is_dir():
        return artefact
    if source.count("/") == 1:
        return fetched if cache.is_whole(fetched) else None
    # Neither a folder nor a hub id: the fetch says so in its own words.
    return resolve(source, progress=progress)


def _about(source: str, text: str) -> str:
    return text if text.startswith((source, "/")) else f"{source}: {text}"
