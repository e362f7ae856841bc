"""Where does a model come from, and is it whole? The sample, the test engine, a hub, a folder."""

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.fetching import cache, checkpoint
from headrace.fetching.cache import FetchError, cache_folder, verify
from headrace.fetching.progress import Progress, Step, say_nothing, shown_on
from headrace.folders import artefacts_folder

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["FetchError", "Progress", "Step", "cache_folder", "fetch", "resolve", "verify"]

MADE_HERE = ("smollm2", "tiny", "minilm")


def resolve(source: str, *, progress: Progress = say_nothing) -> Path:
    """The local checkpoint of one of MADE_HERE, a folder, an artefact or a hub id; fetched or made if need be.

    What is in the cache is trusted by file sizes, in milliseconds. Raises FetchError.
    """
    return _bring(source, progress, cache.is_whole)


def fetch(source: str, *, console: "Console") -> Path:
    """As `resolve`, with progress on the console; the cache is checked by SHA-256 and mended if damaged.

    A folder of one's own gets a reference for the numbers check if it has none. Raises FetchError.
    """
    with shown_on(console) as progress:
        folder = _bring(source, progress, lambda folder: not verify(folder))
        if not folder.is_relative_to(cache_folder()):
            _add_reference(folder, source, progress)
        return folder


def _bring(source: str, progress: Progress, sound: Callable[[Path], bool]) -> Path:
    try:
        if source in MADE_HERE:
            return cache.make(source, lambda folder: _build_here(source, folder, progress), progress, sound)
        if (folder := Path(source).expanduser()).is_dir():
            checkpoint.check(folder)
            return folder.absolute()
        if _is_name(source) and (folder := artefacts_folder() / source).is_dir():
            checkpoint.check(folder)
            return folder
        from headrace.fetching import hub

        if not hub.is_hub_id(source):
            raise _unknown(source)
        return cache.make(
            source.replace("/", "--"),
            lambda folder: _build_from_hub(source, folder, progress),
            progress,
            sound,
        )
    except OSError as error:
        raise FetchError(f"{source}: {error.strerror or error}: {error.filename}") from error


def _is_name(source: str) -> bool:
    return source == Path(source).name


def _build_here(name: str, folder: Path, progress: Progress) -> None:
    from headrace.fetching import minilm, smollm2, tiny

    builds = {"smollm2": smollm2.build, "tiny": tiny.build, "minilm": minilm.build}
    builds[name](folder, progress)
    _add_reference(folder, name, progress)


def _build_from_hub(hub_id: str, folder: Path, progress: Progress) -> None:
    from headrace.fetching import hub

    hub.build(hub_id, folder, progress)
    _add_reference(folder, hub_id, progress)


def _add_reference(folder: Path, name: str, progress: Progress) -> None:
    from deployments import reference

    read = reference.load_vectors if checkpoint.pools(folder) else reference.load
    try:
        known = read(folder)
    except reference.BadReference as error:
        raise FetchError(str(error)) from None
    if known is None:
        from headrace.fetching import references

        references.add(folder, name, progress)


def _unknown(source: str) -> FetchError:
    near = get_close_matches(source, MADE_HERE, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return FetchError(
        f"{source!r} is no known model ({', '.join(MADE_HERE)}), no folder, no artefact and no hub id "
        f"(owner/name){hint}"
    )
