"""What hardware does this machine have, and how much of it is free?"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """One machine, as this process may use it."""

    cores: int
    memory_bytes: int
    available_bytes: int
    """Memory that a new process could have without swapping."""
    gpus: tuple[str, ...]
    """One line for each, as the driver names it."""
    cpu_features: frozenset[str]
    """The kernel's words, such as `avx2`."""


def machine() -> Machine:
    """Looks at this machine, within the limits of the container it runs in."""
    import psutil

    memory = psutil.virtual_memory()
    total_bytes, available_bytes = memory.total, memory.available
    if (limit := _cgroup_limit()) is not None:
        limit_bytes, used_bytes = limit
        total_bytes = min(total_bytes, limit_bytes)
        available_bytes = min(available_bytes, max(0, limit_bytes - used_bytes))
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=total_bytes,
        available_bytes=available_bytes,
        gpus=gpus(),
        cpu_features=cpu_features(Path("/proc/cpuinfo").read_text()),
    )


def gpus() -> tuple[str, ...]:
    """The GPUs that `nvidia-smi -L` lists; none where it is missing or fails."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line for line in listed.stdout.splitlines() if line.startswith("GPU "))


def cpu_features(cpuinfo: str) -> frozenset[str]:
    """The features that every core of a /proc/cpuinfo text has (x86 and ARM)."""
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    per_core = [frozenset(value.split()) for name, _, value in lines if name.strip() in ("flags", "Features")]
    return frozenset.intersection(*per_core) if per_core else frozenset()


def _cgroup_limit() -> tuple[int, int] | None:
    """Limit and use of memory in bytes by cgroup v2; None without a limit."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else (int(limit), used)
