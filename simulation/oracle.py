"""How few replicas would have sufficed for whoever knew the trace?"""

from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaling import StepCosts
from simulation.baselines import Wanted
from simulation.policy import Observed, Policy
from simulation.trace import Trace

MARGINS = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)
"""By which its need is multiplied, the least first."""
SMOOTH_S = 5
"""Work is spread over so many seconds: engines can't take a second's at once."""


def oracle(trace: Trace, costs: StepCosts, *, token_s: float, startup_s: float, margin: float) -> Policy:
    """It knows each second's work, asks a start's time before, and lets go of what is not needed until it could be
    back: the most of all seconds from now to a start's time on, and one more.
    """
    share = max(0.25, 1 - costs.step_s / token_s)
    needs = needed(trace, costs, share=share, margin=margin)
    ahead = ceil(startup_s) + 1
    wanted = _most_ahead(needs, ahead)

    def ask(seen: Observed, memory: Any) -> tuple[Wanted, Any]:
        second = min(int(seen.fleet.now_s), len(wanted) - 1)
        # What waits at the trace's end is worked off by those that are there.
        busy = 1 if seen.fleet.queued_requests or any(load.running_requests for load in seen.fleet.heard) else 0
        return Wanted(replicas=max(busy, int(wanted[second])), reason="known before"), memory

    return ask


def needed(trace: Trace, costs: StepCosts, *, share: float, margin: float) -> NDArray[np.int64]:
    """Replicas at each second, without starts: work of the next SMOOTH_S seconds by what one does in a second."""
    seconds = int(trace.span_s) + 2
    work = costs.prompt_token_s * trace.prompt_tokens + costs.sequence_s * trace.output_tokens
    each = np.bincount(trace.at_s.astype(np.int64), weights=work, minlength=seconds)
    smooth = np.convolve(each, np.full(SMOOTH_S, 1 / SMOOTH_S))[SMOOTH_S - 1 : SMOOTH_S - 1 + seconds]
    return np.ceil(margin * smooth / share - 1e-9).astype(np.int64)


def _most_ahead(values: NDArray[np.int64], ahead: int) -> NDArray[np.int64]:
    """The most of each second and the `ahead` after it."""
    padded = np.concatenate([values, np.zeros(ahead, dtype=values.dtype)])
    return np.lib.stride_tricks.sliding_window_view(padded, ahead + 1).max(axis=1)
