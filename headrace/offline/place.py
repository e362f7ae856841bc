"""Where do the engines of a job run: on this machine, or on the nodes of the cluster that it was submitted to?"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from tempfile import TemporaryDirectory
from typing import Any

from cluster.inventory import machine
from deployments.fleet import Fleet, Model
from deployments.served_model import Replicas
from headrace.checks import check_hardware
from headrace.failure import Failure, bad_input
from headrace.fitting import settled
from headrace.source_folder import source_folder
from headrace.steps import Steps
from headrace.task_ray import task_ray


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """How engines are started by the Ray that this process is connected to."""

    model: Model
    engines: int
    sharers: int
    """Of these, on one machine."""
    claims: str | None
    """Folder in which they agree on cores."""
    actor: dict[str, Any]
    """What each of them takes, as Ray says it."""


@contextmanager
def here(fleet: Fleet, engines: int | None, steps: Steps) -> Iterator[Place]:
    """This machine, by a Ray of its own. Raises Failure."""
    hardware = machine()
    source = str(source_folder(fleet.models[0].source, steps).absolute())
    local = fleet.models[0].model_copy(update={"source": source, "variants": []})
    (model,) = settled(fleet.model_copy(update={"models": [local]}), hardware).models
    count = engines or (max(1, len(hardware.gpus) // model.ranks) if hardware.gpus else 1)
    model = model.model_copy(update={"replicas": Replicas(min=count, max=count)})
    check_hardware(fleet.model_copy(update={"models": [model]}), hardware)
    # Nothing else runs on that Ray: on CPUs engines share the cores among themselves.
    actor = {"num_gpus": model.ranks, "num_cpus": 0} if hardware.gpus else {"num_cpus": 1 / count}
    with TemporaryDirectory(prefix="headrace-batch-") as claims, task_ray(hardware, steps):
        yield Place(model=model, engines=count, sharers=count, claims=claims, actor=actor)


@contextmanager
def cluster(fleet: Fleet, engines: int | None, _steps: Steps) -> Iterator[Place]:
    """All nodes of the cluster whose job this process is; each engine finds or fetches its model. Raises Failure."""
    if "RAY_ADDRESS" not in os.environ:
        raise bad_input("--cluster: this is no job of a cluster: `headrace submit batch run ... --cluster`")
    model = fleet.models[0].model_copy(update={"variants": []})
    if model.tensor_parallel == "auto" or model.nodes > 1:
        raise bad_input("--cluster: tensor_parallel must be a number, and nodes 1: an engine runs on one node")
    import ray

    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield _spread(model, engines, [node["Resources"] for node in ray.nodes() if node["Alive"]])
    finally:
        ray.shutdown()


def _spread(model: Model, engines: int | None, nodes: list[dict[str, float]]) -> Place:
    """Over GPUs where there are any, else one on each node; Ray Data puts actors on nodes in turn."""
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    able = sum(count // model.ranks for count in gpus) if any(gpus) else sum(node.get("CPU", 0) >= 1 for node in nodes)
    if not able and engines is None:
        raise Failure(
            f"an engine takes {model.ranks} GPUs of one node, nodes have {gpus}: --engines N waits for others"
        )
    count = engines or able
    actor: dict[str, Any] = {"num_gpus": model.ranks, "num_cpus": 0} if any(gpus) else {"num_cpus": 1}
    return Place(
        model=model,
        engines=count,
        sharers=ceil(count / max(1, able)),
        claims=None,
        actor=actor,
    )
