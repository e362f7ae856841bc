"""How long do many steps take that grow evenly, and how many of them begin within a time?"""

from math import sqrt


def total_s(steps: int, first_s: float, growth_s: float) -> float:
    """Of steps that take first_s, first_s + growth_s, first_s + 2 growth_s, ..."""
    return steps * first_s + growth_s * steps * (steps - 1) / 2


def begun_before(span_s: float, first_s: float, growth_s: float, *, most: int) -> int:
    """How many such steps, one after the other and at most `most`, begin before `span_s` has passed."""
    if span_s <= 0 or total_s(most - 1, first_s, growth_s) < span_s:
        return 0 if span_s <= 0 else most
    # Near the positive root of their total, then exact.
    slope = first_s - growth_s / 2
    steps = int(2 * span_s / (slope + sqrt(max(0.0, slope * slope + 2 * growth_s * span_s))))
    steps = min(most, max(1, steps))
    while total_s(steps, first_s, growth_s) < span_s:
        steps += 1
    while steps > 1 and total_s(steps - 1, first_s, growth_s) >= span_s:
        steps -= 1
    return steps
