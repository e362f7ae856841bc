"""Which of the prompts that an engine has does it read first? Those that came first; tier batch a little later."""

from routing.request import Tier

BATCH_BEHIND_S = 1.0
"""Whoever comes within so long after a request of tier batch is read before it. No longer: what a router let go there
has its turn, and a place that it takes meanwhile."""


def reading_order(tier: Tier, came_s: float) -> int:
    """Of a request that came then; the lower is read first. Milliseconds by the clock of `came_s`."""
    return round(1000 * (came_s + (BATCH_BEHIND_S if tier is Tier.BATCH else 0.0)))
