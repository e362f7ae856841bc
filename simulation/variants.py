"""What happens to a trace's requests where a model has variants, each with replicas of its own?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import routing
from autoscaling import Decision, Memory, Targets, decide
from autoscaling.ladder import lacked_s, standing_in
from simulation.deployment import Deployment
from simulation.desk import Desk
from simulation.fleet import play
from simulation.outcome import Run, Served
from simulation.policy import Observed
from simulation.setup import Setup
from simulation.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One variant of a model; the model itself is one, of quality 1."""

    name: str
    quality: float
    setup: Setup


def whatever(place: int) -> routing.Wish:
    """The best variant, of no conversation and from one sender."""
    return routing.Wish()


def simulate_variants(
    trace: Trace,
    forms: Sequence[Form],
    targets: Targets,
    *,
    seed: int = 0,
    wish: Callable[[int], routing.Wish] = whatever,
    tell: Callable[[float], None] = lambda share: None,
) -> Run:
    """As `simulate`, with Headrace's policy: one router chooses a variant for each request as a live one does.

    `wish` says what the request at each place of the trace asks of variants.
    """
    deployments = _deployments(trace, forms, targets, seed)
    ladder, counts = routing.Ladder(targets.ttft_s), dict.fromkeys(deployments, 0)

    def choose(place: int, now_s: float) -> Deployment:
        now = [
            routing.Variant(name=form.name, quality=form.quality, serves=one.serves, wait_s=one.wait_s(now_s))
            for form, one in zip(forms, deployments.values(), strict=True)
        ]
        chosen, _ = ladder.choose(now, wish(place), now_s=now_s)
        counts[chosen.name] += 1
        return deployments[chosen.name]

    end_s = play(trace, list(deployments.values()), choose, tell)
    served = tuple(Served(name=form.name, quality=form.quality, requests=counts[form.name]) for form in forms)
    return replace(_together({name: one.run(end_s) for name, one in deployments.items()}), served=served)


@dataclass(slots=True)
class _Rung:
    """The scaling of one variant, which stands in for the next better one."""

    targets: Targets
    better: "_Rung | None"
    lacked_s: float | None = None

    def ask(self, seen: Observed, memory: Memory | None) -> tuple[Decision, Memory]:
        better_s = None if self.better is None else self.better.lacked_s
        fleet = standing_in(seen.fleet, better_s, hold_s=self.targets.hold_s)
        decision, memory = decide(fleet, memory or Memory(), self.targets)
        self.lacked_s = lacked_s(decision, self.lacked_s)
        return decision, memory


def _deployments(trace: Trace, forms: Sequence[Form], targets: Targets, seed: int) -> dict[str, Deployment]:
    """By name, in the order of the forms."""
    rungs: dict[str, _Rung] = {}
    better = None
    for form in sorted(forms, key=lambda form: -form.quality):
        better = rungs[form.name] = _Rung(targets, better)
    return {
        form.name: Deployment(trace, form.setup, rungs[form.name].ask, targets, seed + place, Desk)
        for place, form in enumerate(forms)
    }


def _together(runs: dict[str, Run]) -> Run:
    """What they did as one: each request came to one of them."""
    every = list(runs.values())
    changes = [
        replace(change, reason=f"{name}: {change.reason}") for name, run in runs.items() for change in run.changes
    ]

    def added(name: str) -> Any:
        return np.sum([getattr(run, name) for run in every], axis=0)

    return Run(
        trace=every[0].trace,
        first_s=np.minimum.reduce([run.first_s for run in every]),
        last_s=np.minimum.reduce([run.last_s for run in every]),
        found_tokens=np.maximum.reduce([run.found_tokens for run in every]),
        end_s=every[0].end_s,
        device_s=sum(run.device_s for run in every),
        running=added("running"),
        present=added("present"),
        queued=added("queued"),
        changes=sorted(changes, key=lambda change: change.at_s),
        refused=sum(run.refused for run in every),
        failures=sum(run.failures for run in every),
    )
