"""What Serve is told of a fleet's replicas is what a cluster is asked for room for."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.node_room import Node
from cluster.placement import NoRoom
from deployments.declare import engine_options
from deployments.fleet import Fleet, Model, validate
from deployments.wishes import engine_wish, room_for_least, whole_ranks


def model(**fields: Any) -> Model:
    return fleet(**fields).models[0]


def fleet(**fields: Any) -> Fleet:
    return validate({"models": [{"name": "one", "source": "/models/one"} | fields]})


def gpu_node(name: str, gpus: int = 8, kind: str = "H100", **labels: str) -> Node:
    return Node(name=name, amounts={"GPU": gpus, "CPU": 64}, labels={"ray.io/accelerator-type": kind, **labels})


@st.composite
def models(draw: st.DrawFn) -> Model:
    nodes, split, spread = draw(st.integers(1, 2)), draw(st.booleans()), draw(st.booleans())
    placement = {"split_tensor": split, "spread": spread, "interconnect": "rack"} if nodes > 1 else {}
    tensor = draw(st.integers(1, 4)) if split or not spread else 1
    pipeline = draw(st.integers(nodes, 4))
    copies = draw(st.integers(1, 3)) if nodes == 1 else 1
    sizes = {"tensor_parallel": tensor, "pipeline_parallel": pipeline, "engine": {"data_parallel_size": copies}}
    return model(nodes=nodes, placement=placement, **sizes)


@given(models(), st.booleans())
def test_room_is_asked_for_just_what_the_bundles_take(one: Model, gpus: bool) -> None:
    gpus = gpus or one.nodes > 1
    options = engine_options(one, fleet().router, fleet().scaling, gpus=gpus)
    taken = Counter[str]()
    for bundle in options["placement_group_bundles"]:
        taken.update({name: amount for name, amount in bundle.items() if amount})
    wish = engine_wish(one, gpus=gpus)
    assert {name: amount * wish.parts for name, amount in wish.part} == taken
    assert options["ray_actor_options"]["num_cpus"] <= options["placement_group_bundles"][0]["CPU"]
    assert wish.parts * whole_ranks(one) == one.ranks
    assert whole_ranks(one) % one.tensor == 0 or one.placement.split_tensor


def test_a_replica_on_one_node_takes_a_gpu_for_each_rank_of_each_copy() -> None:
    wish = engine_wish(model(tensor_parallel=2, engine={"data_parallel_size": 3}), gpus=True)
    assert (wish.parts, dict(wish.part)) == (1, {"GPU": 6, "CPU": 6})


def test_wishes_among_nodes_become_ray_s_selectors_and_the_search_s_labels() -> None:
    asked = model(
        nodes=2,
        pipeline_parallel=2,
        placement={"devices": ["H100", "H200"], "labels": {"pool": "llm"}, "interconnect": "rack"},
    )
    options = engine_options(asked, fleet().router, fleet().scaling, gpus=True)
    assert options["placement_group_bundle_label_selector"] == [
        {"pool": "llm", "ray.io/accelerator-type": "in(H100, H200)"}
    ]
    assert engine_wish(asked, gpus=True).alike == ("ray.io/accelerator-type", "rack")
    assert "placement_group_bundle_label_selector" not in engine_options(model(), fleet().router, fleet().scaling)


def test_stages_of_a_replica_are_laid_on_alike_nodes_and_routers_beside_them() -> None:
    wanted = fleet(
        nodes=2,
        tensor_parallel=8,
        pipeline_parallel=2,
        placement={"devices": ["H100", "H200"], "interconnect": "rack"},
    )
    nodes = [
        Node(name="head", amounts={"CPU": 4}),
        gpu_node("a", kind="H100", rack="1"),
        gpu_node("b", kind="H200", rack="1"),
        gpu_node("c", kind="H200", rack="2"),
    ]
    with pytest.raises(NoRoom, match="one: room for 0 of 1 replicas beside the routers"):
        room_for_least(wanted, nodes)
    router, engine = room_for_least(wanted, [*nodes, gpu_node("d", kind="H200", rack="2")])
    assert engine.nodes == ("c", "d")
    assert router.name == "the routers"


def test_a_model_that_sleeps_takes_no_room_but_must_have_some() -> None:
    nodes = [gpu_node("a", 2)]
    asleep = {"name": "two", "source": "/models/two", "replicas": {"min": 0, "max": 1}}
    awake = {"name": "one", "source": "/models/one", "tensor_parallel": 2}
    assert len(room_for_least(validate({"models": [awake, asleep]}), nodes)) == 2
    with pytest.raises(NoRoom, match="two: room for 0 of 1 replicas; each takes 4 GPU and 4 CPU"):
        room_for_least(validate({"models": [awake, asleep | {"tensor_parallel": 4}]}), nodes)


def test_where_no_node_has_a_gpu_engines_take_cpus() -> None:
    (_, engine) = room_for_least(fleet(tensor_parallel=2), [Node(name="a", amounts={"CPU": 3})])
    assert engine.nodes == ("a",)


def test_an_update_needs_room_for_one_more_router() -> None:
    nodes = [Node(name="a", amounts={"CPU": 1.5})]
    assert len(room_for_least(fleet(), nodes)) == 2
    with pytest.raises(NoRoom, match="the routers"):
        room_for_least(fleet(), nodes, update=True)
    assert len(room_for_least(fleet(), [Node(name="a", amounts={"CPU": 2})], update=True)) == 3
