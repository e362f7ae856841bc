"""On which nodes may a model's replicas lie? What fleet.yaml says of it, checked against the model's sizes."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

LABEL = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
LabelName = Annotated[str, Field(pattern=rf"^([a-z0-9.-]{{1,253}}/)?{LABEL}$")]
LabelValue = Annotated[str, Field(pattern=rf"^{LABEL}$")]
DEVICE_LABEL = "ray.io/accelerator-type"
"""Under which Ray tells the kind of a node's GPUs."""


class Placement(BaseModel):
    """Which nodes of a Ray cluster a model's replicas may lie on, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    devices: list[LabelValue] = []
    """Kinds of GPU of which any will do, by Ray's names, such as H100 or A100. Empty: every kind."""
    labels: dict[LabelName, LabelValue] = {}
    """Labels that Ray's nodes must have, such as `rack: r7`."""
    interconnect: LabelName | None = None
    """With `nodes` above 1: label of which all nodes of a replica must have the same value. null: none."""
    spread: bool = False
    """With `nodes` above 1: stages evenly on as many machines as there are. Else on as few as have room."""
    split_tensor: bool = False
    """With `nodes` above 1: the devices that share a layer may lie on several machines, which then talk in each one."""


def check_placement(
    placement: Placement, *, nodes: int, tensor: int | Literal["auto"], pipeline: int, copies: object
) -> None:
    """Raises ValueError where the parts of a model contradict each other. `copies`: engine.data_parallel_size."""
    if not isinstance(copies, int) or isinstance(copies, bool) or copies < 1:
        raise ValueError(f"engine.data_parallel_size should be a whole number above 0, got {copies!r}")
    if DEVICE_LABEL in placement.labels:
        raise ValueError(f"placement.labels: write placement.devices instead of {DEVICE_LABEL}")
    if nodes == 1:
        for name in ("interconnect", "spread", "split_tensor"):
            if getattr(placement, name):
                raise ValueError(f"placement.{name} goes with nodes above 1, got nodes 1")
        return
    if copies > 1:
        raise ValueError(f"engine.data_parallel_size should be 1 where nodes is above 1, got {copies}")
    if not placement.split_tensor:
        _check_whole(placement, nodes=nodes, tensor=tensor, pipeline=pipeline)


def _check_whole(placement: Placement, *, nodes: int, tensor: int | Literal["auto"], pipeline: int) -> None:
    """Raises ValueError where a tensor group could not stay on one machine."""
    if nodes > pipeline:
        raise ValueError(
            "nodes should be at most pipeline_parallel, as each stage stays on one machine "
            f"(placement.split_tensor: true lets it leave), got nodes {nodes} and pipeline_parallel {pipeline}"
        )
    if placement.spread and tensor != 1:
        raise ValueError(
            "placement.spread goes with tensor_parallel 1, as Ray spreads GPU by GPU "
            f"(placement.split_tensor: true allows it), got tensor_parallel {tensor}"
        )
