"""Which variant of a model is started next?

The best one, as long as it may have more replicas. What it lacks beyond that is asked of the next cheaper one: of that,
a first replica is kept, and from then on what routers send there says how many are needed.
"""

from dataclasses import replace

from autoscaling.decision import Decision
from autoscaling.fleet import Fleet


def lacked_s(decision: Decision, before_s: float | None) -> float | None:
    """When a variant last wished for more replicas than it may have, this decision included; None: never."""
    return decision.fleet.now_s if decision.wish > decision.fleet.max_replicas else before_s


def standing_in(fleet: Fleet, better_lacked_s: float | None, *, hold_s: float) -> Fleet:
    """The fleet of a variant, with a replica at least while the next better one lacks any, and `hold_s` after that."""
    if better_lacked_s is None or not 0 <= fleet.now_s - better_lacked_s < hold_s:
        return fleet
    return replace(fleet, min_replicas=max(1, fleet.min_replicas))
