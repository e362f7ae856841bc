"""Replicas find a place whenever there is one, whole; and where there is none, what is short is named."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cluster import placement
from cluster.node_room import Node, Wish
from cluster.placement import NoRoom, Placed, Undecided, complaint, place

KIND, RACK = "kind", "rack"


def node(name: str, gpus: float = 8, cpus: float = 64, **labels: str) -> Node:
    return Node(name=name, amounts={"GPU": gpus, "CPU": cpus}, labels=labels)


def wish(name: str, replicas: int = 1, *, stages: int = 1, tensor: int = 1, **others: object) -> Wish:
    part = (("GPU", float(tensor)), ("CPU", float(tensor)))
    return Wish(name=name, replicas=replicas, parts=stages, part=part, **others)  # type: ignore[arg-type]


nodes_ = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from(["", "a", "b"]), st.sampled_from(["", "r", "s"])),
    max_size=3,
).map(
    lambda rows: [
        node(f"n{i}", gpus, cpus, **({KIND: kind} if kind else {}), **({RACK: rack} if rack else {}))
        for i, (gpus, cpus, kind, rack) in enumerate(rows)
    ]
)
wishes_ = st.lists(
    st.tuples(
        st.integers(1, 2),
        st.integers(1, 3),
        st.integers(1, 3),
        st.sampled_from([(), ((KIND, frozenset("a")),), ((KIND, frozenset("ab")),)]),
        st.sampled_from([(), (RACK,), (KIND, RACK)]),
        st.booleans(),
    ),
    max_size=2,
).map(
    lambda rows: [
        wish(f"w{i}", replicas, stages=stages, tensor=tensor, labels=labels, alike=alike, spread=spread)
        for i, (replicas, stages, tensor, labels, alike, spread) in enumerate(rows)
    ]
)


def lawful(nodes: Sequence[Node], wishes: Sequence[Wish], found: Sequence[Placed]) -> bool:
    """Whether nothing is overcommitted, and every replica is there, whole and on nodes that it may use."""
    by_name, of = {each.name: each for each in nodes}, {each.name: each for each in wishes}
    wanted = Counter({each.name: each.replicas for each in wishes})
    return (
        Counter(placed.name for placed in found) == wanted
        and all(may_lie(of[placed.name], [by_name[name] for name in placed.nodes]) for placed in found)
        and all(amount <= by_name[name].amounts[resource] for (name, resource), amount in used(of, found).items())
    )


def may_lie(asked: Wish, on: Sequence[Node]) -> bool:
    """Whether these may be the nodes of the parts of one replica, were they empty."""
    right = all(each.labels.get(label) in values for each in on for label, values in asked.labels)
    values = [{each.labels.get(label) for each in on} for label in asked.alike]
    return len(on) == asked.parts and right and all(len(each) == 1 and each != {None} for each in values)


def used(of: Mapping[str, Wish], found: Sequence[Placed]) -> Counter[tuple[str, str]]:
    """By node and resource: what lies there."""
    counts = Counter[tuple[str, str]]()
    for placed in found:
        for name, (resource, amount) in product(placed.nodes, of[placed.name].part):
            counts[name, resource] += int(amount)
    return counts


def every(nodes: Sequence[Node], wishes: Sequence[Wish]) -> Iterator[list[Placed]]:
    """All ways to give each part of each replica some node, lawful or not."""
    replicas = [each for each in wishes for _ in range(each.replicas)]
    names = [each.name for each in nodes]
    for laid in product(*(product(names, repeat=each.parts) for each in replicas)):
        yield [Placed(name=each.name, nodes=where) for each, where in zip(replicas, laid, strict=True)]


@given(nodes_, wishes_)
@settings(max_examples=150, deadline=None)
def test_a_placement_is_found_whenever_brute_force_finds_one_and_it_is_lawful(
    nodes: list[Node], wishes: list[Wish]
) -> None:
    assume(sum(each.replicas * each.parts for each in wishes) <= 5)
    if not any(lawful(nodes, wishes, each) for each in every(nodes, wishes)):
        with pytest.raises(NoRoom, match=r"\A[^\n]*\Z"):
            place(nodes, wishes)
        return
    found = place(nodes, wishes)
    assert lawful(nodes, wishes, found)
    assert [each.name for each in found] == [each.name for each in wishes for _ in range(each.replicas)]
    assert place(nodes, wishes) == found, "the same question has the same answer"


@given(nodes_, st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_a_packed_replica_takes_the_fewest_nodes_and_a_spread_one_the_most_even(
    nodes: list[Node], stages: int, tensor: int
) -> None:
    def nodes_used(counts: Counter[str]) -> int:
        return len(counts)

    def unevenness(counts: Counter[str]) -> int:
        return sum(count**2 for count in counts.values())

    for spread, cost in ((False, nodes_used), (True, unevenness)):
        asked = [wish("w", stages=stages, tensor=tensor, spread=spread)]
        costs = [cost(Counter(each[0].nodes)) for each in every(nodes, asked) if lawful(nodes, asked, each)]
        if costs:
            (placed,) = place(nodes, asked)
            assert cost(Counter(placed.nodes)) == min(costs)
            assert list(placed.nodes) == sorted(placed.nodes, key=placed.nodes.index), "stages on a node follow"


def test_greed_would_fail_here() -> None:
    """The small replica must leave the node where it fits best, since the large one fits nowhere else."""
    nodes = [node("a", 3, kind="h100"), node("b", 4, kind="l4")]
    large = wish("large", tensor=3)
    small = wish("small", 4, tensor=1)
    assert [each.nodes for each in place(nodes, [small, large])] == [("b",)] * 4 + [("a",)]
    either = wish("either", tensor=4), wish("any", tensor=3)
    assert [each.nodes for each in place(nodes, either)] == [("b",), ("a",)]


def test_stages_stay_within_one_rack_and_on_one_kind_of_gpu() -> None:
    nodes = [node("a", rack="1", kind="x"), node("b", rack="2", kind="x"), node("c", rack="2", kind="x"), node("d")]
    two = wish("two", stages=2, tensor=8, alike=(RACK,), labels=((KIND, frozenset({"x", "y"})),))
    (placed,) = place(nodes, [two])
    assert placed.nodes == ("b", "c")
    with pytest.raises(NoRoom, match="all on nodes with one rack"):
        place(nodes[:2], [two])


def test_replicas_fill_a_node_before_they_take_another_unless_they_are_spread() -> None:
    nodes = [node("a"), node("b"), node("c")]
    packed = place(nodes, [wish("w", 4, tensor=2)])
    assert {name for each in packed for name in each.nodes} == {"a"}
    spread = place(nodes, [wish("w", 4, tensor=2, spread=True)])
    assert sorted(Counter(name for each in spread for name in each.nodes).values()) == [1, 1, 2]


def test_large_clusters_are_answered_at_once() -> None:
    nodes = [node(f"n{i}", rack=str(i % 16)) for i in range(128)]
    found = place(nodes, [wish("big", 32, stages=2, tensor=8, alike=(RACK,)), wish("small", 64, tensor=8)])
    assert len(found) == 96
    with pytest.raises(NoRoom, match="small: room for 64 of 65 replicas beside big"):
        place(nodes, [wish("big", 32, stages=2, tensor=8, alike=(RACK,)), wish("small", 65, tensor=8)])


def test_what_is_not_decided_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "LOOKS", 3)
    nodes = [node(f"n{i}", 3 + i) for i in range(6)]
    with pytest.raises(Undecided):
        place(nodes, [wish("w", 3, stages=4)])


@pytest.mark.parametrize(
    ("nodes", "wishes", "told"),
    [
        (
            [node("a", 3), node("b", 3)],
            [wish("w", 2, tensor=4)],
            "w: room for 0 of 2 replicas; each takes 4 GPU and 4 CPU on one node; too little GPU: left are a 3 GPU, "
            "b 3 GPU",
        ),
        (
            [node("a"), node("b", cpus=3)],
            [wish("v", tensor=4), wish("w", 2, stages=2, tensor=4)],
            "w: room for 0 of 2 replicas beside v; each takes 2 times 4 GPU and 4 CPU, each time on one node; "
            "too little GPU and CPU: left are a 4 GPU 60 CPU, b 8 GPU 3 CPU",
        ),
        (
            [node("a", kind="l4"), node("b")],
            [wish("w", labels=((KIND, frozenset({"h100", "h200"})),))],
            "w: room for 0 of 1 replicas; each takes 1 GPU and 1 CPU on one node; no node has kind=h100 or h200; "
            "there are kind=; kind=l4",
        ),
        ([], [wish("w", alike=(RACK,), stages=2)], "no node has the label rack; there are no nodes"),
        (
            [node(f"n{i}", 0) for i in range(9)],
            [wish("w")],
            "left are n0 0 GPU, n1 0 GPU, n2 0 GPU, n3 0 GPU and on 5 more nodes",
        ),
    ],
)
def test_a_refusal_names_what_is_short_and_where(nodes: list[Node], wishes: list[Wish], told: str) -> None:
    with pytest.raises(NoRoom) as refused:
        place(nodes, wishes)
    assert str(refused.value).endswith(told)


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ("aaaabbbb", ""),
        ("aaaaaaaa", ""),
        ("aaaaaabb", "a tensor group of 4 would be split over nodes: its 8 ranks lie 6 on a, 2 on b"),
        ("aaaacccc", "its nodes should share one rack, they have 1, 2"),
        ("dddd", "its nodes should share one rack, they have none"),
    ],
)
def test_a_placement_that_was_made_is_judged(nodes: str, told: str) -> None:
    labels = {"a": {RACK: "1"}, "b": {RACK: "1"}, "c": {RACK: "2"}, "d": {}}
    assert complaint(nodes, labels, whole=4, alike=(RACK,)) == told
    assert not complaint(nodes, labels, whole=1, alike=())
