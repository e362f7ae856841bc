"""How are the limits of a key typed, and shown?"""

import re
from collections import Counter

import routing
from headrace.failure import bad_input

BUDGET = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?:/(day|month|total))?")
UNITS = {"requests": "requests", "tokens": "tokens", "gpu_s": "GPU-seconds"}


def limits(
    requests_per_min: int | None, tokens_per_min: int | None, tokens: list[str], gpu_s: list[str]
) -> tuple[routing.Limit, ...]:
    """As options say them. Raises Failure."""
    minutes = (("requests", requests_per_min), ("tokens", tokens_per_min))
    rates = [routing.Limit(unit=unit, amount=amount) for unit, amount in minutes if amount is not None]
    budgets = [
        *(_budget("tokens", text, "--budget-tokens") for text in tokens),
        *(_budget("gpu_s", text, "--budget-gpu-s") for text in gpu_s),
    ]
    for name, count in Counter(limit.name for limit in budgets).most_common(1):
        if count > 1:
            raise bad_input(f"one budget of a kind, {name} is given {count} times")
    return (*rates, *budgets)


def shown(limits: tuple[routing.Limit, ...]) -> str:
    """Such as `60 requests/min, 5000000 tokens/month`."""
    return ", ".join(f"{limit.amount:.12g} {UNITS[limit.unit]}/{limit.period or 'min'}" for limit in limits) or "none"


def _budget(unit: str, text: str, option: str) -> routing.Limit:
    found = BUDGET.fullmatch(text)
    if found is None or not float(found[1]) or (unit == "tokens" and "." in found[1]):
        raise bad_input(f"{option}: should be like 1000000, 50000/day or 1000000/month, got {text!r}")
    return routing.Limit(unit=unit, amount=float(found[1]), period=routing.Period(found[2] or "total"))
