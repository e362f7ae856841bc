"""By how much was the need misjudged, by what users got?"""

from math import exp

from autoscaling.fleet import Fleet
from autoscaling.memory import Memory
from autoscaling.targets import Targets
from autoscaling.traffic import SHORT_S

STEP = 0.002
"""Relative change for each request that missed its target, less what may be missed."""
MOST_PER_S = 0.001
"""Fastest relative change, either way."""
LEAST, MOST = 0.85, 1.5
LONGEST_GAP_S = 5.0
"""Between two decisions: what happened in longer ones is not known."""


def corrected(fleet: Fleet, memory: Memory, targets: Targets) -> float:
    """The factor of the need, after this moment's requests were judged.

    It comes to rest where as many miss as may (stochastic approximation, Robbins and Monro 1951, doi
    10.1214/aoms/1177729586). While replicas start it does not grow: that they are missing is no news.
    """
    if memory.decided_s is None:
        return memory.correction
    passed_s = min(max(0.0, fleet.now_s - memory.decided_s), LONGEST_GAP_S)
    missed = fleet.traffic.missed_requests / SHORT_S
    judged = fleet.traffic.judged_requests / SHORT_S
    change = STEP * (missed - (1 - targets.attainment) * judged)
    if fleet.starting:
        change = min(change, 0.0)
    change = max(-MOST_PER_S, min(MOST_PER_S, change))
    return max(LEAST, min(MOST, memory.correction * exp(change * passed_s)))
