"""What does a user ask for? The values of fleet.yaml, validated once."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Replicas(BaseModel):
    """How many engine replicas a model may have."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    min: Annotated[int, Field(ge=0)] = 1
    """Replicas kept even without load."""
    max: Annotated[int, Field(ge=1)] = 1
    """Replicas that load may bring."""


class Model(BaseModel):
    """One model that the fleet serves."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str
    """What clients write in `model`."""
    source: str
    """A fetched name (`smollm2`, `tiny`), a folder, or a hub id."""
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    """Devices over which each layer is split."""
    pipeline_parallel: Annotated[int, Field(ge=1)] = 1
    """Groups of layers, each on its own devices."""
    nodes: Annotated[int, Field(ge=1)] = 1
    """Machines that one replica spans (more than one needs GPUs)."""
    engine: dict[str, Any] = {}
    """Engine arguments, by vLLM's names, passed as they are."""
    replicas: Replicas = Replicas()
    require_reference: bool = False
    """Refuse to serve a checkpoint that has no reference log-probabilities beside it."""


class RouterSettings(BaseModel):
    """The front door."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every interface."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port of the OpenAI-compatible endpoint."""
    replicas: Annotated[int, Field(ge=1)] = 1
    """Routers, each with its own queue."""
    max_queued_requests: Annotated[int, Field(ge=1)] = 1024
    """Requests one router keeps waiting for one model before it refuses more."""


class Scaling(BaseModel):
    """How replicas follow load."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    target_utilization: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Share of an engine's request slots that should be busy."""
    hold_s: Annotated[float, Field(ge=0)] = 60.0
    """Seconds for which the largest recent wish is kept before going down."""


class ClusterSettings(BaseModel):
    """The Ray cluster that carries the fleet."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    address: str = "local"
    """`local` starts Ray on this machine, on loopback, for as long as the fleet runs."""


class Fleet(BaseModel):
    """Everything that fleet.yaml says."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    models: Annotated[list[Model], Field(min_length=1)]
    router: RouterSettings = RouterSettings()
    scaling: Scaling = Scaling()
    cluster: ClusterSettings = ClusterSettings()


class FleetError(ValueError):
    """A fleet.yaml that can't be used; its text is one line: which field, what it was, what is allowed."""


def load(path: Path) -> Fleet:
    """Reads and validates a fleet file. Raises FleetError."""
    import yaml

    return Fleet.model_validate(yaml.safe_load(path.read_text()))
