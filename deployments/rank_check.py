"""Did Ray place the ranks of this replica as its model wants them? Asked in the replica, before its engine starts."""

import ray

from cluster.placement import complaint
from deployments.fleet import Model
from deployments.wishes import alike, whole_ranks


class Misplaced(RuntimeError):
    """An engine would be slow, or worse, where it was placed; the text says why, and what would help."""


def check_ranks(model: Model) -> None:
    """Raises Misplaced where a tensor group would be split unasked, or nodes differ that should be alike.

    Ray packs GPU by GPU, from the emptiest node on: groups stay whole where free GPUs come in their multiples.
    """
    if (group := ray.util.get_current_placement_group()) is None:
        raise Misplaced("Ray gave its ranks no placement group")
    laid = [node for _, node in sorted(ray.util.placement_group_table(group)["bundles_to_node_id"].items())]
    nodes = {node["NodeID"]: node for node in ray.nodes()}
    names = {one: f"{nodes[one]['NodeManagerAddress']} ({one[:6]})" for one in set(laid)}
    labels = {names[one]: nodes[one]["Labels"] for one in names}
    told = complaint([names[one] for one in laid], labels, whole=whole_ranks(model), alike=alike(model))
    if told:
        raise Misplaced(f"{told}; give the model nodes of its own by placement.labels")
