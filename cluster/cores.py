"""Which CPU cores does an engine replica bind to, when several share a machine?

Each claimed core is a file locked with flock, so a claim ends with its process, however that dies. A core that
everyone has claimed is claimed a second time at the next level: replicas then share it, evenly.
"""

import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """Cores held by this process for as long as `locks` are open."""

    cores: tuple[int, ...]
    locks: tuple[int, ...]
    """File descriptors that hold the claim."""


def claim(count: int, *, folder: Path, cores: Sequence[int] | None = None) -> Claim:
    """Claims `count` cores, the least claimed first, among `cores` (default: those this process may use).

    A machine with fewer cores gives all it has. `folder` is shared by the replicas of one machine.
    """
    usable = sorted(os.sched_getaffinity(0)) if cores is None else sorted(cores)
    folder.mkdir(parents=True, exist_ok=True)
    held: dict[int, int] = {}
    level = 0
    while len(held) < min(count, len(usable)):
        for core in usable:
            if core not in held and len(held) < count and (lock := _lock(folder / f"{core}.{level}")) is not None:
                held[core] = lock
        level += 1
    return Claim(cores=tuple(sorted(held)), locks=tuple(held.values()))


def release(held: Claim) -> None:
    """Gives the cores back."""
    for lock in held.locks:
        os.close(lock)


def binding(cores: Sequence[int], ranks: int) -> str:
    """Splits cores among tensor and pipeline ranks, in vLLM's form: ``"0,1|2,3"``.

    With fewer cores than ranks, ranks share cores.
    """
    share = max(1, len(cores) // ranks)
    groups = [[cores[(rank * share + i) % len(cores)] for i in range(share)] for rank in range(ranks)]
    return "|".join(",".join(str(core) for core in group) for group in groups)


def _lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
