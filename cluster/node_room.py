"""What room do nodes have, in which ways does a replica find place there, and what is short where it does not?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

UNITS = 10_000
"""Of one CPU, GPU or other resource that are counted: as finely as Ray does."""
SHOWN = 4
"""Nodes that a refusal names."""

Counts = tuple[tuple[int, int], ...]
"""Nodes by number, and how many parts of a replica lie on each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A machine, or what of it is free."""

    name: str
    amounts: Mapping[str, float]
    """By resource, in Ray's words: `GPU`, `CPU`, `memory`, ..."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Such as the kind of its GPUs, or the interconnect that it shares with others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """Replicas that are alike. Each is `parts` equal parts, every one whole on one node.

    A part is a pipeline stage with its tensor group; the whole replica, where that must not leave its node; one rank,
    where a tensor group may be split.
    """

    name: str
    """Its own among wishes."""
    replicas: int
    parts: int = 1
    part: tuple[tuple[str, float], ...]
    """What each part takes, by resource; amounts above 0."""
    labels: tuple[tuple[str, frozenset[str]], ...] = ()
    """Labels that a node must have, and the values of which one will do."""
    alike: tuple[str, ...] = ()
    """Labels that a node must have, and of which all nodes of a replica have the same value."""
    spread: bool = False
    """Parts on as many nodes as there are, evenly; else on as few."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """What is left on each node, and what lies there."""

    nodes: tuple[Node, ...]
    kinds: tuple[int, ...]
    """By node: equal where labels are."""
    resources: tuple[str, ...]
    left: tuple[tuple[int, ...], ...]
    """By node and resource, in UNITS."""
    carried: tuple[Mapping[str, int], ...]
    """By node: how many parts of each wish."""

    def largest_first(self, wishes: Sequence[Wish]) -> list[Wish]:
        """Those with the largest parts lead."""
        return sorted(wishes, key=self._needs, reverse=True)

    def shape(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """Equal for rooms that can hold the same."""
        return tuple(sorted(zip(self.kinds, self.left, strict=True)))

    def may_hold(self, wanted: Mapping[Wish, int]) -> bool:
        """False only where so many replicas of each wish surely don't fit."""
        return all(self.fitting(wish) >= count for wish, count in wanted.items()) and not any(
            sum(self._needs(wish)[index] * wish.parts * count for wish, count in wanted.items())
            > sum(left[index] for left in self.left)
            for index in range(len(self.resources))
        )

    def fitting(self, wish: Wish) -> int:
        """Replicas that would fit if there were no others."""
        return sum(sum(self._fits(wish, node) for node in group) // wish.parts for group in self._groups(wish))

    def ways(self, wish: Wish) -> Iterator[Counts]:
        """Every way to lay one replica on the nodes; of nodes that are equal the first ones are taken."""
        for group in self._groups(wish):
            fits = {node: count for node in group if (count := self._fits(wish, node))}
            same = {node: self._same(wish, node) for node in fits}
            nodes = sorted(fits, key=lambda node: (-fits[node], same[node], node))
            runs = [tuple(run) for _, run in groupby(nodes, key=lambda node: same[node])]
            yield from _ways(runs, fits, wish.parts, wish.parts)

    def cost(self, wish: Wish, counts: Counts) -> tuple[object, ...]:
        """Least for the best way: spread evenly, or on few nodes, which carry something already and keep least."""
        nodes = tuple(node for node, _ in counts)
        if wish.spread:
            return sum((self.carried[node].get(wish.name, 0) + count) ** 2 for node, count in counts), nodes
        fresh = sum(not self.carried[node] for node in nodes)
        kept = tuple(sum(self.left[node][index] for node in nodes) for index in range(len(self.resources)))
        return len(nodes), fresh, kept, nodes

    def less(self, wish: Wish, counts: Counts) -> "Room":
        """What is left beside a replica that lies so."""
        left, carried, needs = list(self.left), list(self.carried), self._needs(wish)
        for node, count in counts:
            left[node] = tuple(there - count * need for there, need in zip(left[node], needs, strict=True))
            carried[node] = {**carried[node], wish.name: carried[node].get(wish.name, 0) + count}
        return replace(self, left=tuple(left), carried=tuple(carried))

    def shortage(self, wish: Wish) -> str:
        """Why not one more replica finds room: what is short, and what is left of it where."""
        nodes = [node for group in self._groups(wish) for node in group]
        if not nodes:
            return f"no node has {_labels_asked(wish)}; there are {self._labels_there(wish)}"
        short = [name for name, need in wish.part if self._parts_by(nodes, name, need) < wish.parts]
        named = short or [name for name, _ in wish.part]
        left = ", ".join(f"{self.nodes[node].name} {self._told(node, named)}" for node in nodes[:SHOWN])
        more = f" and on {len(nodes) - SHOWN} more nodes" if len(nodes) > SHOWN else ""
        return f"too little {' and '.join(named)}: left are {left}{more}"

    def _groups(self, wish: Wish) -> list[list[int]]:
        """Nodes that the parts of one replica may lie on together."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for index, node in enumerate(self.nodes):
            wanted = all(node.labels.get(name) in values for name, values in wish.labels)
            if wanted and all(name in node.labels for name in wish.alike):
                groups.setdefault(tuple(node.labels[name] for name in wish.alike), []).append(index)
        return list(groups.values())

    def _fits(self, wish: Wish, node: int) -> int:
        """Parts that have room there."""
        pairs = zip(self.left[node], self._needs(wish), strict=True)
        return min(there // need for there, need in pairs if need)

    def _needs(self, wish: Wish) -> tuple[int, ...]:
        part = dict(wish.part)
        return tuple(round(part.get(name, 0.0) * UNITS) for name in self.resources)

    def _same(self, wish: Wish, node: int) -> tuple[object, ...]:
        """Equal for nodes of which one is as good as the other."""
        carried = self.carried[node]
        return self.kinds[node], self.left[node], carried.get(wish.name, 0) if wish.spread else len(carried) > 0

    def _parts_by(self, nodes: Sequence[int], resource: str, need: float) -> int:
        """Parts that this resource alone allows."""
        index = self.resources.index(resource)
        return sum(self.left[node][index] // round(need * UNITS) for node in nodes)

    def _told(self, node: int, names: Sequence[str]) -> str:
        left = dict(zip(self.resources, self.left[node], strict=True))
        return " ".join(f"{left[name] / UNITS:g} {name}" for name in names)

    def _labels_there(self, wish: Wish) -> str:
        asked = dict.fromkeys([*(name for name, _ in wish.labels), *wish.alike])
        told = {", ".join(f"{name}={node.labels.get(name, '')}" for name in asked) for node in self.nodes}
        return "; ".join(sorted(told)) or "no nodes"


def empty(nodes: Sequence[Node], wishes: Sequence[Wish]) -> Room:
    """The nodes with nothing on them. GPUs lead among resources, being the scarce ones."""
    asked = {name for wish in wishes for name, _ in wish.part}
    resources = tuple(sorted(asked, key=lambda name: (name != "GPU", name)))
    kinds: dict[frozenset[tuple[str, str]], int] = {}
    return Room(
        nodes=tuple(nodes),
        kinds=tuple(kinds.setdefault(frozenset(node.labels.items()), len(kinds)) for node in nodes),
        resources=resources,
        left=tuple(tuple(int(node.amounts.get(name, 0.0) * UNITS) for name in resources) for node in nodes),
        carried=tuple({} for _ in nodes),
    )


def _ways(runs: Sequence[tuple[int, ...]], fits: Mapping[int, int], parts: int, most: int) -> Iterator[Counts]:
    """`runs`: nodes that are equal, of which an earlier one carries no less; `most`: what the first one may carry."""
    if not parts:
        yield ()
    elif runs:
        (node, *equal), others = runs[0], runs[1:]
        left = [tuple(equal), *others] if equal else others
        for count in range(min(parts, most, fits[node]), 0, -1):
            for more in _ways(left, fits, parts - count, count if equal else parts):
                yield ((node, count), *more)
        yield from _ways(others, fits, parts, parts)


def told(wish: Wish) -> str:
    """What one replica takes, in words."""
    part = " and ".join(f"{amount:g} {name}" for name, amount in wish.part)
    if wish.parts == 1:
        return f"{part} on one node"
    alike = f", all on nodes with one {' and one '.join(wish.alike)}" if wish.alike else ""
    return f"{wish.parts} times {part}, each time on one node{alike}"


def _labels_asked(wish: Wish) -> str:
    values = [f"{name}={' or '.join(sorted(values))}" for name, values in wish.labels]
    return " and ".join([*values, *(f"the label {name}" for name in wish.alike)])
