"""For what must a cluster have room, so that a fleet's replicas can be placed?"""

from collections.abc import Sequence
from dataclasses import replace

from cluster.node_room import Node, Wish
from cluster.placement import Placed, place
from deployments.fleet import Fleet, Model
from deployments.model_placement import DEVICE_LABEL

ROUTER_CPUS = 0.5
ROUTERS = "the routers"
"""No model can have this name."""


def room_for_least(fleet: Fleet, nodes: Sequence[Node], *, update: bool = False) -> tuple[Placed, ...]:
    """Places for the routers and the fewest engines of each model on a cluster's nodes, were they empty.

    Engines take GPUs where a node has any. An update starts a router before it ends one. Raises NoRoom, also for a
    model that sleeps and would find no room were it alone, and Undecided.
    """
    gpus = any(node.amounts.get("GPU") for node in nodes)
    routers = Wish(name=ROUTERS, replicas=fleet.router.replicas + update, part=(("CPU", ROUTER_CPUS),))
    engines = [engine_wish(model, gpus=gpus) for model in fleet.engines]
    for wish in engines:
        if not wish.replicas:
            place(nodes, [replace(wish, replicas=1)])
    return place(nodes, [routers, *engines])


def engine_wish(model: Model, *, gpus: bool) -> Wish:
    """The fewest engines of a model, as Serve is told of them (declare.py)."""
    parts = _parts(model)
    each = model.ranks // parts
    several = parts > 1
    return Wish(
        name=model.name,
        replicas=model.replicas.min,
        parts=parts,
        part=((("GPU", float(each)),) if gpus else ()) + (("CPU", float(each)),),
        labels=tuple((name, frozenset(values)) for name, values in node_labels(model).items()),
        alike=alike(model) if several else (),
        spread=model.placement.spread,
    )


def node_labels(model: Model) -> dict[str, list[str]]:
    """Labels that a model's nodes must have, each with the values that will do."""
    placement = model.placement
    kinds = {DEVICE_LABEL: placement.devices} if placement.devices else {}
    return {name: [value] for name, value in placement.labels.items()} | kinds


def alike(model: Model) -> tuple[str, ...]:
    """Labels of which all nodes of one replica must have the same value."""
    placement = model.placement
    kinds = (DEVICE_LABEL,) if len(placement.devices) > 1 else ()
    return (*kinds, placement.interconnect) if placement.interconnect else kinds


def whole_ranks(model: Model) -> int:
    """Ranks that must lie together on one node."""
    return model.ranks // _parts(model)


def _parts(model: Model) -> int:
    if model.nodes == 1:
        return 1
    return model.ranks if model.placement.split_tensor else model.pipeline_parallel
