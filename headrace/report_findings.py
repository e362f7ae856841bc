"""What did a step find? In words, and in lists that are long enough to be drawn."""

import json
from numbers import Real
from typing import Any

from headrace.report_numbers import duration, number

TITLES = {"recovery_losses": "loss, nats per token"}
"""What lists are called where they are drawn; others go by their own names."""
DRAWN = ("block_influence", "dropped")
"""Drawn together, not as curves."""
LEARNT = "learning_curve"
"""Lists of the same length: step, loss, seconds."""
BEFORE_AND_AFTER = ("neurons", "kv_heads", "heads")


def findings(found: dict[str, Any]) -> dict[str, str]:
    """What a step measured, in words, without what is drawn."""
    lists = curves(found)
    told = {key: value for key, value in found.items() if key not in lists and key != "block_influence"}
    if learnt := told.pop(LEARNT, None):
        told |= {"loss": _learnt(learnt)}
    return {key.replace("_", " "): _told(key, value) for key, value in told.items()}


def curves(found: dict[str, Any]) -> dict[str, list[float]]:
    """The lists of numbers among a step's findings that are long enough to be drawn as a line."""
    lists = {key: value for key, value in found.items() if isinstance(value, list | tuple) and key not in DRAWN}
    return {key: list(value) for key, value in lists.items() if len(value) > 2 and all(map(_is_number, value))}


def shortened(value: object) -> str:
    """A value from a recipe, a step's findings or a machine's facts on one line."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return number(value)
        case str():
            return value
        case [*items] if not any(isinstance(item, list | dict) for item in items):
            return ", ".join(map(shortened, items)) or "none"
    return json.dumps(value, ensure_ascii=False, default=str)


def title(name: str) -> str:
    """What stands beside a curve."""
    return TITLES.get(name, name.replace("_", " "))


def _told(key: str, value: Any) -> str:
    return " → ".join(map(shortened, value)) if key in BEFORE_AND_AFTER else shortened(value)


def _learnt(curve: dict[str, list[float]]) -> str:
    steps, loss, seconds = curve["step"], curve["loss"], curve["seconds"]
    return f"{number(loss[0])} → {number(loss[-1])} nats per token in {len(steps):,} steps, {duration(seconds[-1])}"


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
