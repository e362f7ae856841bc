"""How does a command become a Ray job on a cluster, and what does `headrace submit` show of it?"""

import asyncio
import logging
import shlex
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from headrace.authorities import named
from headrace.cluster_head import Head, head
from headrace.failure import INTERRUPTED, Failure, bad_input
from headrace.steps import Steps

COMMANDS = ("compress", "calibrate", "simulate", "batch")
"""What computes for long and leaves files or prints; the others serve, or look at this machine."""
MOST_BYTES = 100 << 20
"""Of the files that go along; Ray takes no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What the command line says."""

    words: list[str]
    """Of the command that is to run there."""
    name: str
    address: str | None
    token_file: str | None
    cpus: float
    gpus: float
    memory_gb: float
    detach: bool
    stop_on_interrupt: bool


class Jobs(Protocol):
    """Of ray.job_submission.JobSubmissionClient: what is used here."""

    def submit_job(
        self,
        *,
        entrypoint: str,
        runtime_env: dict[str, Any],
        metadata: dict[str, str],
        entrypoint_num_cpus: float,
        entrypoint_num_gpus: float,
        entrypoint_memory: int,
    ) -> str: ...

    def tail_job_logs(self, job_id: str) -> AsyncIterator[str]: ...

    def get_job_info(self, job_id: str) -> Any: ...

    def stop_job(self, job_id: str) -> bool: ...


def command(wish: Wish) -> None:
    """Submits, and shows what the job prints until it has ended. Raises Failure."""
    if not wish.words or wish.words[0] not in COMMANDS:
        given = repr(wish.words[0]) if wish.words else "nothing"
        raise bad_input(f"submit: which command? One of {', '.join(COMMANDS)}, got {given}")
    where = head(wish.name, wish.address, wish.token_file)
    # Elsewhere Python is the one that the node's image has first; here, the one that runs the run.
    python = "python" if where.run is None else sys.executable
    submit(jobs_of(where), wish, where.where, Steps(Console(highlight=False)), python)


def submit(jobs: Jobs, wish: Wish, where: str, steps: Steps, python: str) -> None:
    """The same, by a client of the cluster's jobs. Raises Failure."""
    with tempfile.TemporaryDirectory(prefix="headrace-job-") as folder:
        words = packed(wish.words, Path(folder))
        try:
            job = jobs.submit_job(
                entrypoint=shlex.join([python, "-m", "headrace", *words]),
                runtime_env={"working_dir": folder},
                metadata={"headrace": wish.words[0]},
                entrypoint_num_cpus=wish.cpus,
                entrypoint_num_gpus=wish.gpus,
                entrypoint_memory=round(wish.memory_gb * 1e9),
            )
        except RuntimeError as error:
            raise Failure(f"{where} refused the job: {error}") from None
    steps.say(f"Job {job} on {where}: {shlex.join(words)}")
    if wish.detach:
        steps.say(f"It goes on without this terminal; its log: {_log_line(job)}")
        return
    follow(jobs, job, wish, steps)


def follow(jobs: Jobs, job: str, wish: Wish, steps: Steps) -> None:
    """Shows a job's output until it has ended. Raises Failure when it ended badly, or by Ctrl-C."""
    try:
        asyncio.run(_show(jobs, job))
    except KeyboardInterrupt:
        if wish.stop_on_interrupt:
            jobs.stop_job(job)
            raise Failure(f"job {job} is told to stop", exit_code=INTERRUPTED) from None
        raise Failure(f"job {job} goes on there; its log: {_log_line(job)}", exit_code=INTERRUPTED) from None
    except (RuntimeError, OSError) as error:
        raise Failure(f"lost sight of job {job}, which may go on: {error}; its log: {_log_line(job)}") from None
    found = jobs.get_job_info(job)
    if found.status != "SUCCEEDED":
        code = getattr(found, "driver_exit_code", None)
        raise Failure(f"job {job} {str(found.status.value).lower()}: {_last(found.message)}", exit_code=code or 1)
    steps.say(f"✓ Job {job} is done")


def packed(words: list[str], folder: Path) -> list[str]:
    """The words with each file of this machine by the name under which it travels, in `folder`. Raises Failure."""
    renamed, size_bytes = [], 0
    for word in words:
        file = Path(word).expanduser()
        if not file.is_file():
            renamed.append(word)
            continue
        size_bytes += file.stat().st_size
        if size_bytes > MOST_BYTES:
            raise bad_input(
                f"{word}: the files that go along may have {MOST_BYTES >> 20} MiB together: put it where every node "
                "reads it, and name it by a path that is not on this machine"
            )
        name = _free(file.name, folder)
        shutil.copy(file, folder / name)
        renamed.append(name)
    return renamed


def _free(name: str, folder: Path) -> str:
    """A name that no other file of the job has."""
    number, found = 1, name
    while (folder / found).exists():
        number += 1
        found = f"{number}-{name}"
    return found


async def _show(jobs: Jobs, job: str) -> None:
    async for text in jobs.tail_job_logs(job):
        sys.stdout.write(text)
        sys.stdout.flush()


def jobs_of(where: Head) -> Jobs:
    """A client of a cluster's jobs. Raises Failure where it takes none."""
    from ray.job_submission import JobSubmissionClient

    for chatty in ("job.sdk", "dashboard_sdk"):
        logging.getLogger(f"ray.dashboard.modules.{chatty}").setLevel(logging.ERROR)
    try:
        known = named(where.rest.url) or True
        return JobSubmissionClient(where.rest.url, headers=dict(where.rest.headers), verify=known)
    except (ConnectionError, RuntimeError) as error:
        raise Failure(f"{where.where} takes no jobs: {error}") from None


def _log_line(job: str) -> str:
    return f"`ray job logs --follow {job}`"


def _last(message: str | None) -> str:
    lines = (message or "").strip().splitlines()
    return lines[-1] if lines else "no reason was given"
