"""In what does one fleet differ from another, and what does the difference replace?"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deployments.fleet import Fleet

NOTHING = object()
"""Stands for a field that is not there."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field, by its name in fleet.yaml: models by their own names, other lists by position."""

    field: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.before is NOTHING:
            return f"+ {self.field}: {self.after}"
        if self.after is NOTHING:
            return f"- {self.field}: {self.before}"
        return f"~ {self.field}: {self.before} -> {self.after}"


def changes(before: Fleet, after: Fleet) -> list[Change]:
    """Every field that differs, in the file's order; what is new or gone in one piece is one change."""
    return list(_differ("", _named(before), _named(after)))


def effects(before: Fleet | None, after: Fleet) -> list[str]:
    """What Serve does to become `after`, a line each; nothing when there is no change."""
    if before == after:
        return []
    old = {engine.name for engine in before.engines} if before else set[str]()
    new = {engine.name for engine in after.engines}
    said = [f"starts engines of {name}" for name in sorted(new - old)]
    said += [f"ends engines of {name} when they have answered" for name in sorted(old - new)]
    if before is None:
        return ["starts routers", *said]
    said += [
        f"replaces engines of {name}, a fifth at a time: each ends before the next starts" for name in _both(old, new)
    ]
    return ["replaces routers, one at a time: each starts before an old one ends", *said]


def _both(old: set[str], new: set[str]) -> list[str]:
    return sorted(old & new)


def _named(fleet: Fleet) -> dict[str, Any]:
    values = fleet.model_dump(mode="json")
    return values | {"models": {model["name"]: model for model in values["models"]}}


def _differ(field: str, before: Any, after: Any) -> Iterator[Change]:
    if before == after:
        return
    if not isinstance(before, dict) or not isinstance(after, dict):
        yield Change(field, before, after)
        return
    for key in [*before, *(key for key in after if key not in before)]:
        name = f"{field}.{key}" if field else str(key)
        yield from _differ(name, before.get(key, NOTHING), after.get(key, NOTHING))
