"""Where do fetched checkpoints lie, and are they whole?"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.fetching.progress import Progress

CHECKSUMS = "headrace_checksums.json"


class FetchError(Exception):
    """A model that can't be had; its text is one line with the way out."""


def cache_folder() -> Path:
    """The folder of everything fetched: $HEADRACE_CACHE, or this system's place for a user's caches."""
    if chosen := os.environ.get("HEADRACE_CACHE"):
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("headrace", appauthor=False)


def place(name: str) -> Path:
    """Where the checkpoint of this name lies, fetched or not."""
    return cache_folder() / "models" / name


def is_whole(folder: Path) -> bool:
    """Whether every file that was fetched is there in its full size. Reads no contents: see `verify`."""
    files = _recorded(folder)
    return bool(files) and all(_size_bytes(folder / name) == file["bytes"] for name, file in files.items())


def verify(folder: Path) -> list[str]:
    """Names of the files that are missing or not as fetched, by SHA-256; the list itself if it is gone."""
    files = _recorded(folder)
    if not files:
        return [CHECKSUMS]
    return [name for name, file in files.items() if _sha256(folder / name) != file["sha256"]]


def make(
    name: str,
    build: Callable[[Path], None],
    progress: Progress,
    sound: Callable[[Path], bool] = is_whole,
) -> Path:
    """The checkpoint's folder, built first unless it is there and `sound`.

    `build` fills a folder beside the final one, which may still hold what a killed run left there; only the
    finished folder gets the checkpoint's name, so a process killed at any moment leaves no half checkpoint.
    Processes that want the same name wait for each other.
    """
    folder = place(name)
    if sound(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _held_alone(name, progress):
        if sound(folder):
            return folder
        if folder.exists():
            progress(f"{name}: damaged in the cache ({', '.join(verify(folder))}); making it again")
        partial = folder.with_name(f".{name}.partial")
        partial.mkdir(exist_ok=True)
        build(partial)
        _record(partial)
        _replace(folder, partial)
    return folder


def empty(folder: Path) -> None:
    """Removes what a killed run left, for a build that can't go on from it."""
    shutil.rmtree(folder)
    folder.mkdir()


@contextmanager
def _held_alone(name: str, progress: Progress) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(place(name).with_name(f".{name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(f"{name}: another process is fetching it; waiting for that one")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _replace(folder: Path, new: Path) -> None:
    # A folder that isn't empty can't be renamed over, and removing it file by file could stop half way.
    aside = folder.with_name(f".{folder.name}.discarded")
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        os.rename(folder, aside)
    os.rename(new, folder)
    shutil.rmtree(aside, ignore_errors=True)


def _record(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    record = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files
    }
    (folder / CHECKSUMS).write_text(json.dumps(record, indent=1) + "\n")


def _recorded(folder: Path) -> dict[str, dict]:
    try:
        return json.loads((folder / CHECKSUMS).read_text())
    except (OSError, ValueError):
        return {}


def _size_bytes(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
