"""On which node does each part of each replica lie? Found exactly where the case is small.

Ray places. This says beforehand whether there is a place, and afterwards whether the one that Ray took is good.
"""

from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from cluster.node_room import Counts, Node, Room, Wish, empty, told

LOOKS = 20_000
"""Ways to lay a replica that are looked at, over all, before the question is left open."""
AT_ONCE = 2_000
"""Of these, for one replica at one time."""


class NoRoom(ValueError):
    """There is no placement. The text, one line, says whose replicas find none, what is short, and where."""


class Undecided(RuntimeError):
    """Neither a placement nor the proof that there is none was found within LOOKS."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """One replica, wholly placed."""

    name: str
    """Of its wish."""
    nodes: tuple[str, ...]
    """Of each part. Those on one node follow each other, as pipeline stages should."""


def place(nodes: Sequence[Node], wishes: Sequence[Wish]) -> tuple[Placed, ...]:
    """A node for each part of every replica, in the order of the wishes. Raises NoRoom and Undecided.

    The largest parts are placed first. Each replica is laid in the best way that leaves room for those after it: on
    the fewest nodes; of these, nodes that carry something; of these, where least is left. Where the wish is spread: on
    nodes that carry the fewest parts of it.
    """
    room, found = _search(nodes, wishes)
    if room is None:
        raise NoRoom(_refusal(nodes, wishes))
    return tuple(placed for wish in wishes for placed in found if placed.name == wish.name)


def complaint(
    nodes: Sequence[str], labels: Mapping[str, Mapping[str, str]], *, whole: int, alike: Sequence[str]
) -> str:
    """What is wrong with a placement that was made; empty when nothing is.

    `nodes`: of each rank. Engines number ranks node by node, so groups of `whole` ranks lie each on one node where
    every node has a multiple of them. `labels`: of each node; those in `alike` all nodes of a replica should share.
    """
    counts = {node: list(nodes).count(node) for node in dict.fromkeys(nodes)}
    if any(count % whole for count in counts.values()):
        laid = ", ".join(f"{count} on {node}" for node, count in counts.items())
        return f"a tensor group of {whole} would be split over nodes: its {len(nodes)} ranks lie {laid}"
    for label in alike:
        values = {labels.get(node, {}).get(label, "") for node in counts}
        if len(values) > 1 or "" in values:
            return f"its nodes should share one {label}, they have {', '.join(sorted(values)) or 'none'}"
    return ""


@dataclass(slots=True)
class _Level:
    """One replica in the search: the room before it, and ways to lay it that were not tried yet."""

    room: Room
    ways: Iterator[Counts]
    placed: Placed | None = None


def _search(nodes: Sequence[Node], wishes: Sequence[Wish]) -> tuple[Room | None, list[Placed]]:
    """The room left beside all replicas, and their places; no room when there is none. Depth first."""
    room = empty(nodes, wishes)
    order = [wish for wish in room.largest_first(wishes) for _ in range(wish.replicas)]
    looks, levels, dead = _Looks(), list[_Level](), set[tuple[int, object]]()
    while len(levels) < len(order):
        key = (len(levels), room.shape())
        possible = key not in dead and room.may_hold(_counted(order[len(levels) :]))
        levels.append(_Level(room, looks.best(room, order[len(levels)]) if possible else iter(())))
        while (way := next(levels[-1].ways, None)) is None:
            dead.add((len(levels) - 1, levels.pop().room.shape()))
            if not levels:
                looks.check()
                return None, []
        wish, level = order[len(levels) - 1], levels[-1]
        names = tuple(nodes[node].name for node, parts in sorted(way) for _ in range(parts))
        level.placed, room = Placed(name=wish.name, nodes=names), level.room.less(wish, way)
    return room, [level.placed for level in levels if level.placed]


class _Looks:
    """Counts the ways that are looked at. Raises Undecided when there were too many."""

    def __init__(self) -> None:
        self._left, self._all = LOOKS, True

    def best(self, room: Room, wish: Wish) -> Iterator[Counts]:
        """Ways to lay a replica, the best first; not all where there are too many."""
        ways = list(islice(room.ways(wish), AT_ONCE + 1))
        self._all = self._all and len(ways) <= AT_ONCE
        self._left -= len(ways)
        if self._left < 0:
            self._all = False
            self.check()
        return iter(sorted(ways[:AT_ONCE], key=lambda way: room.cost(wish, way)))

    def check(self) -> None:
        """Raises Undecided when a way may not have been looked at."""
        if not self._all:
            raise Undecided("there are too many ways to place these replicas to look at all")


def _counted(order: Sequence[Wish]) -> dict[Wish, int]:
    counts: dict[Wish, int] = {}
    for wish in order:
        counts[wish] = counts.get(wish, 0) + 1
    return counts


def _refusal(nodes: Sequence[Node], wishes: Sequence[Wish]) -> str:
    """Of the first wish that finds no room beside those before it; there is one."""
    end = next(end for end in range(len(wishes)) if _search(nodes, wishes[: end + 1])[0] is None)
    wish, before = wishes[end], wishes[:end]

    def room(replicas: int) -> Room | None:
        return _search(nodes, [*before, replace(wish, replicas=replicas)])[0]

    held = bisect(range(wish.replicas + 1), False, key=lambda replicas: room(replicas) is None) - 1
    left = room(held) or empty(nodes, wishes)
    beside = f" beside {', '.join(each.name for each in before)}" if before else ""
    return (
        f"{wish.name}: room for {held} of {wish.replicas} replicas{beside}; each takes {told(wish)}; "
        f"{left.shortage(wish)}"
    )
