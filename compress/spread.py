"""Who does the work that several processes share: asking the source, and training? This machine, without Ray."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from compress import training
from compress.steps import Tell
from compress.teacher import Teach, teach_here
from compress.training import Training


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How such work is given out; both travel to where a stage runs."""

    teach: Teach
    train: Callable[[Training, Tell], None]
    """Returns when the trained weights lie in the job's folder."""


def train_here(job: Training, tell: Tell) -> None:
    """In this process if one worker does, else in that many of their own. Raises Diverged."""
    if job.step.workers == 1:
        training.train(job, 0, tell)
        return
    meeting = job.folder / f"meeting-{os.getpid()}"
    meeting.unlink(missing_ok=True)
    try:
        spawn(_worker, (job, str(meeting), tell), nprocs=job.step.workers)
    finally:
        meeting.unlink(missing_ok=True)


def _worker(rank: int, job: Training, meeting: str, tell: Tell) -> None:
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    torch.set_num_threads(max(1, torch.get_num_threads() // job.step.workers))
    dist.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=job.step.workers)
    try:
        training.train(job, rank, tell)
    finally:
        dist.destroy_process_group()


HERE = Spread(teach=teach_here, train=train_here)
