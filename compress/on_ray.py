"""How does a stage run as a task of Ray, with what it needs declared, and tell how far it is?

Progress goes through a small file beside the finished stages: it is there for whoever can see them.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError, WorkerCrashedError

from compress.flow import Call, Needs

TELL_EVERY_S = 0.2


class StageKilled(RuntimeError):
    """A stage whose process was ended from outside, as when the machine's memory was full."""


def as_tasks(progress: Path) -> Call:
    """Runs each stage as one task of the Ray that this process is connected to; `progress`: where it is told.

    A task takes one CPU (whole small models gain little from a second and lose much where it is busy), all of them
    while seconds are measured, and the GPU where there is one.
    """
    total = ray.cluster_resources()
    # One call a process: the next stage begins in one that holds nothing yet.
    task = ray.remote(max_calls=1)(_carry)

    def call(work: Callable[..., Path], *arguments: Any, needs: Needs) -> Path:
        options = {
            "num_cpus": 0 if needs.spreads else total["CPU"] if needs.alone else 1,
            "num_gpus": 0 if needs.spreads else min(1, total.get("GPU", 0)),
            "memory": min(needs.memory_bytes, total["memory"]),
            "max_retries": 0,
        }
        try:
            return ray.get(task.options(**options).remote(work, arguments, progress))
        except RayTaskError as error:
            raise error.cause from None
        except WorkerCrashedError:
            raise StageKilled(
                f"{work.__name__}: its process was ended from outside; is there enough memory? What is finished is kept"
            ) from None

    return call


def told(progress: Path) -> tuple[str, float | None]:
    """What is being done, and which share of it where that is known."""
    try:
        found = json.loads(progress.read_text())
        return found["doing"], found["share"]
    except (OSError, ValueError):
        return "waiting", None


class _Teller:
    """A Tell that writes where `told` reads; one that was sent to another process writes there too."""

    def __init__(self, progress: Path) -> None:
        self._progress, self._last_s, self._last = progress, 0.0, ""

    def __call__(self, doing: str, share: float | None) -> None:
        now_s = time.monotonic()
        if doing == self._last and now_s - self._last_s < TELL_EVERY_S:
            return
        self._last_s, self._last = now_s, doing
        aside = self._progress.with_name(f".{self._progress.name}.{os.getpid()}")
        aside.write_text(json.dumps({"doing": doing, "share": share}))
        os.replace(aside, self._progress)


def _carry(work: Callable[..., Path], arguments: tuple[Any, ...], progress: Path) -> Path:
    return work(*arguments, _Teller(progress))
