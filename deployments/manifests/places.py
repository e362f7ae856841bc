"""Where may a fleet run in Kubernetes, and how do these places differ? Each is an overlay."""

from dataclasses import dataclass
from typing import Literal

from deployments.fleet import Fleet, Model


class Unfit(ValueError):
    """A fleet that can't run in a place; the text says which field, what it is and what it should be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One overlay."""

    name: str
    purpose: str
    gpus: bool
    cache: Literal["ReadWriteOnce", "ReadWriteMany"] | None
    """How pods share the volume with the models; None: each has its own, for as long as it lives."""
    several_nodes: bool = False
    """Whether an engine may span machines, and routers must not share one."""
    highly_available: bool = False
    """Whether Ray's head may die without the cluster, and Prometheus watches."""


PLACES = {
    place.name: place
    for place in (
        Place(name="dev", purpose="a try on CPUs, such as on kind", gpus=False, cache=None),
        Place(name="gpu", purpose="one machine with GPUs", gpus=True, cache="ReadWriteOnce"),
        Place(
            name="nodes",
            purpose="several machines with GPUs, which engines may span",
            gpus=True,
            cache="ReadWriteMany",
            several_nodes=True,
        ),
        Place(
            name="production",
            purpose="the same, watched by Prometheus, and without a single point whose death ends the service",
            gpus=True,
            cache="ReadWriteMany",
            several_nodes=True,
            highly_available=True,
        ),
    )
}


def check(fleet: Fleet, place: Place) -> None:
    """Raises Unfit, one line for each model or setting that can't be in this place."""
    wrong = [line for model in fleet.engines for line in _complaints(model, place)]
    if (fleet.store.url or "").startswith("sqlite"):
        wrong.append("store.url: should be a PostgreSQL, since pods share no file, or null")
    if place.highly_available and fleet.router.replicas < 2:
        wrong.append(f"router.replicas: should be at least 2 in {place.name}, got {fleet.router.replicas}")
    if wrong:
        raise Unfit("\n".join(wrong))


def _complaints(model: Model, place: Place) -> list[str]:
    if model.tensor_parallel == "auto":
        return [f"{model.name}: tensor_parallel should be a number: which GPUs there are is not known here"]
    if model.nodes > 1 and not place.several_nodes:
        return [f"{model.name}: nodes should be 1 in {place.name}, got {model.nodes}"]
    if named := [name for name in ("devices", "labels", "interconnect") if getattr(model.placement, name)]:
        return [
            f"{model.name}: placement.{named[0]} should be left out: engines run on pods of their own here, "
            "whose nodes you choose by a patch"
        ]
    together = model.nodes * (1 if model.placement.split_tensor else model.tensor)
    if model.nodes > 1 and model.ranks % together:
        return [
            f"{model.name}: nodes should divide pipeline_parallel, so that no layer is split over machines, "
            f"got {model.nodes} and {model.pipeline_parallel}"
        ]
    return []
