"""What happens to a trace's requests in a fleet whose size a policy sets, on a virtual clock?"""

from collections.abc import Callable, Sequence
from math import inf

from autoscaling import Targets
from simulation.deployment import Deployment
from simulation.desk import Desk
from simulation.dispatcher import MakeDispatcher
from simulation.outcome import Run
from simulation.policy import Policy
from simulation.setup import Setup
from simulation.trace import Trace

PATIENCE_S = 3600.0
"""After the trace's end, for what still runs."""


def simulate(
    trace: Trace,
    setup: Setup,
    policy: Policy,
    targets: Targets,
    *,
    seed: int = 0,
    desk: MakeDispatcher = Desk,
    tell: Callable[[float], None] = lambda share: None,
) -> Run:
    """A decision each second. The same arguments give the same run. `tell` hears now and then which share is done.

    `desk` makes who sends requests to replicas: a router of Headrace's, unless another is to be compared with it.
    """
    one = Deployment(trace, setup, policy, targets, seed, desk)
    return one.run(play(trace, [one], lambda place, now_s: one, tell))


def play(
    trace: Trace,
    deployments: Sequence[Deployment],
    choose: Callable[[int, float], Deployment],
    tell: Callable[[float], None],
) -> float:
    """Brings each request of the trace to the deployment that is chosen for it when it comes; when all has ended.

    No earlier than the trace ends, nor later than PATIENCE_S after that.
    """
    at_s, now_s, place, count = trace.at_s, 0.0, 0, trace.requests
    arrivals, most_s = at_s.tolist(), trace.span_s + PATIENCE_S
    arrivals.append(inf)
    while place < count or (any(one.unfinished for one in deployments) and now_s < most_s):
        now_s += 1.0
        while True:
            first = min(deployments, key=Deployment.next_s)
            if (event_s := min(arrivals[place], first.next_s())) >= now_s:
                break
            if event_s == arrivals[place]:
                choose(place, event_s).arrive(place, event_s)
                place += 1
            else:
                first.happen(event_s)
        for one in deployments:
            one.decide(now_s)
        if now_s % 600 == 0:
            tell(min(1.0, now_s / max(1.0, trace.span_s)))
    return max(trace.span_s, *(one.ended_s for one in deployments))
