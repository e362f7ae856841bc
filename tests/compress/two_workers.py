"""What two workers compute, each in a process of its own: run by tests, which compare it with what one computes."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.multiprocessing.spawn import spawn

from compress import training
from compress.training import Training

GRADIENTS = "gradients.pt"


def gradients(jobs: list[Training]) -> None:
    """Of each job's first step, whole, into its folder."""
    spawn(_worker, (jobs,), nprocs=2)


def _worker(rank: int, jobs: list[Training]) -> None:
    torch.set_num_threads(1)
    meeting = jobs[0].folder / "meeting"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    for job in jobs:
        _keep(job, rank)
    dist.destroy_process_group()


def _keep(job: Training, rank: int) -> None:
    device = torch.device("cpu")
    model = training.begin(job.student, device)
    loss = training.backward(training.share(model, job.step, device), job, 1, rank)
    found = {name: _whole(weight.grad) for name, weight in model.named_parameters()}
    if rank == 0:
        torch.save({"loss": loss, "gradients": found}, job.folder / GRADIENTS)


def _whole(gradient: torch.Tensor | None) -> torch.Tensor:
    assert gradient is not None
    return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient


def read(folder: Path) -> tuple[float, dict[str, torch.Tensor]]:
    found = torch.load(folder / GRADIENTS, weights_only=True)
    return found["loss"], found["gradients"]
