"""Which results are finished already, and how does one become so? Each is a folder or a file, whole or not there."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock


def name(kind: str, *ingredients: Any) -> str:
    """What a result is called: everything that decides it, hashed."""
    text = json.dumps(ingredients, sort_keys=True, ensure_ascii=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def once(place: Path, build: Callable[[Path], None]) -> Path:
    """The finished folder at `place`, built first if it isn't there.

    `build` fills an empty folder beside it, which gets the name only when all of it is on disk: a process killed at
    any moment leaves a finished result or none. Processes that want the same one wait for each other.
    """
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_name(f".{place.name}.lock")):
        if place.is_dir():
            return place
        partial = place.with_name(f".{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        build(partial)
        to_disk(partial)
        os.replace(partial, place)
        _sync(place.parent)
    return place


def file(path: Path, write: Callable[[Path], object]) -> None:
    """One file, whole or not there: `write` fills another beside it, which gets the name when it is on disk."""
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    _sync(partial)
    os.replace(partial, path)
    _sync(path.parent)


def to_disk(folder: Path) -> None:
    """Returns when every file below a folder would survive a power cut."""
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def checkpoint_hash(folder: Path) -> str:
    """SHA-256 over config and weights of a checkpoint, whatever its files are called."""
    total = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
