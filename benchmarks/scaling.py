"""How few device-hours does each scaling policy need for the requests that meet their targets? Writes JSON.

    python -m benchmarks.scaling --quick
    python -m benchmarks.scaling --trace a.csv.gz --trace b.jsonl --out docs/evidence/scaling.json

Without --trace: load made here by seed, of three forms. Each trace is scaled so that the oracle's mean is 7 replicas
and repeated until it lasts 20 starts; every baseline is tried with each value of its own knob, Headrace with one set
of defaults.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import pi
from pathlib import Path
from typing import Any

import numpy as np

from autoscaling import StepCosts, Targets
from benchmarks.machine_facts import circumstances
from benchmarks.published_models import published
from cluster.device_facts import BY_NAME
from cluster.engine_memory import default_settings
from cluster.fit import fit
from cluster.quick_step import quick_step_seconds
from cluster.speed import unmeasured
from cluster.step_time import Layout
from headrace.simulate_asked import ORACLE, OURS, Asked
from headrace.simulate_runs import Job, played, step_costs
from simulation.baselines import BASELINES
from simulation.oracle import MARGINS, needed
from simulation.outcome import Summary
from simulation.setup import Setup
from simulation.trace import Trace, read, scaled, tiled

WANTED_REPLICAS = 7.0
STARTS = 20
MOST_REPLICAS = 64
CONTEXT_TOKENS = 16_384
SYNTHETIC_S = 1_230.0


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One trace with one start-up time and one seed."""

    trace: str
    startup_s: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Point:
    """One policy in a cell."""

    policy: str
    knob: float | None
    attainment: float
    device_hours: float


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the grid and writes every point, and what follows of them."""
    options = _options(argv)
    begun_s, cells = time.perf_counter(), list[dict[str, Any]]()
    for cell, job in _jobs(options):
        points = list(_points(job, options.quick))
        told = {"cell": asdict(cell), "requests": job.trace.requests, **judged(points)}
        cells.append(told | {"points": [asdict(point) for point in points]})
        print(_line(cell, told), file=sys.stderr, flush=True)
    result = circumstances() | {
        "device": options.gpu,
        "targets": asdict(Targets()),
        "seconds": time.perf_counter() - begun_s,
        "summary": summed_up(cells),
        "cells": cells,
    }
    text = json.dumps(result, indent=1)
    Path(options.out).write_text(text + "\n") if options.out else print(text)


def judged(points: Sequence[Point]) -> dict[str, Any]:
    """Headrace's place among the others of a cell.

    `saved`: of the hours of the cheapest baseline that attains as much; None where none does. `over_oracle`: hours over
    those of the cheapest oracle that attains as much; None where none was tried that does.
    """
    ours = next(point for point in points if point.policy == OURS)
    others = [point for point in points if point.policy in BASELINES]
    dominating = [
        point for point in others if point.attainment >= ours.attainment and point.device_hours <= ours.device_hours
    ]
    as_good = [point.device_hours for point in others if point.attainment >= ours.attainment]
    knowing = [point for point in points if point.policy == ORACLE]
    oracles = [point.device_hours for point in knowing if point.attainment >= ours.attainment]
    return {
        "attainment": ours.attainment,
        "device_hours": ours.device_hours,
        "dominated_by": [f"{point.policy}={point.knob:g}" for point in dominating],
        "saved": 1 - ours.device_hours / min(as_good) if as_good else None,
        "over_oracle": ours.device_hours / min(oracles) if oracles else None,
    }


def summed_up(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over cells."""

    def mean(name: str) -> float | None:
        found = [cell[name] for cell in cells if cell[name] is not None]
        return sum(found) / len(found) if found else None

    return {
        "cells": len(cells),
        "dominated": sum(bool(cell["dominated_by"]) for cell in cells),
        "no_baseline_attains_as_much": sum(cell["saved"] is None for cell in cells),
        "mean_saved": mean("saved"),
        "mean_over_oracle": mean("over_oracle"),
        "mean_attainment": mean("attainment"),
    }


def synthetic(name: str, seed: int) -> Trace:
    """Twenty minutes whose rate follows a form: a day's slow wave, steps, or bursts; lengths are lognormal."""
    source = np.random.default_rng(seed)
    seconds = np.arange(int(SYNTHETIC_S))
    if name == "wave":
        rate = 4 * (1 - 0.7 * np.cos(2 * pi * seconds / SYNTHETIC_S))
    elif name == "steps":
        rate = np.repeat(source.choice([2.0, 4.0, 8.0], size=6), int(SYNTHETIC_S) // 6)
    else:
        rate = np.full(len(seconds), 3.0)
        for begin in source.integers(0, len(seconds) - 90, size=5):
            rate[begin : begin + int(source.integers(15, 90))] += source.uniform(4, 9)
    counts = source.poisson(rate)
    at_s = np.repeat(seconds.astype(float), counts) + source.random(int(counts.sum()))
    order = np.argsort(at_s)
    prompts, answers = (
        np.clip(source.lognormal(mean, 1.0, len(at_s)), 1, most).astype(np.int32)
        for mean, most in ((5.8, 8_000), (4.4, 1_000))
    )
    return Trace(at_s=at_s[order] - at_s.min(), prompt_tokens=prompts, output_tokens=answers)


def setup(gpu: str, startup_s: float) -> Setup:
    """Qwen3 32B on one device, by its data sheet."""
    model, device = published("Qwen3-32B"), BY_NAME[gpu]
    settings = default_settings(device, context_tokens=CONTEXT_TOKENS)
    held = fit(model, device, layout=Layout(), settings=settings)
    speeds = unmeasured(model, device, "bf16")
    return Setup(
        settings=settings,
        kv_blocks=int(held.largest_batch * CONTEXT_TOKENS) // settings.block_tokens,
        step=quick_step_seconds(model, device, speeds, layout=Layout()),
        startup_s=startup_s,
        max_replicas=MOST_REPLICAS,
        begins_with=int(WANTED_REPLICAS),
    )


def as_wanted(trace: Trace, costs: StepCosts, targets: Targets, *, startup_s: float, seed: int) -> Trace:
    """Long enough, and with the load for which the oracle would have WANTED_REPLICAS in the mean."""
    longer = tiled(trace, least_s=STARTS * startup_s)
    share = max(0.25, 1 - costs.step_s / targets.token_s)
    work_s = costs.prompt_token_s * longer.prompt_tokens.sum() + costs.sequence_s * longer.output_tokens.sum()
    factor = WANTED_REPLICAS * share * longer.span_s / float(work_s)
    found = scaled(longer, factor, seed=seed)
    # Whole replicas at each second are more than their work: once more, by what the oracle says.
    mean = float(needed(found, costs, share=share, margin=1.0).mean())
    return scaled(longer, factor * WANTED_REPLICAS / mean, seed=seed)


def _jobs(options: argparse.Namespace) -> Iterator[tuple[Cell, Job]]:
    targets = Targets()
    names = options.trace or ["wave", "steps", "bursts"]
    for name in names:
        for startup_s in options.startup:
            made = setup(options.gpu, startup_s)
            costs = step_costs(made).costs()
            assert costs is not None
            for seed in range(options.seeds):
                base = read(Path(name)).fitting(CONTEXT_TOKENS) if options.trace else synthetic(name, seed)
                trace = as_wanted(base, costs, targets, startup_s=startup_s, seed=seed)
                yield (
                    Cell(trace=Path(name).name, startup_s=startup_s, seed=seed),
                    Job(asked=Asked(name=OURS), seed=seed, trace=trace, setup=made, targets=targets),
                )


def _points(job: Job, quick: bool) -> Iterator[Point]:
    yield _point(job, Asked(name=OURS))
    for name, baseline in BASELINES.items():
        for knob in baseline.knobs[::2] if quick else baseline.knobs:
            yield _point(job, Asked(name=name, knob=knob))
    for margin in MARGINS:
        found = _point(job, Asked(name=ORACLE, knob=margin))
        yield found
        if found.attainment >= 0.99:
            break


def _point(job: Job, asked: Asked) -> Point:
    summary: Summary = played(replace(job, asked=asked)).summary
    return Point(policy=asked.name, knob=asked.knob, attainment=summary.attainment, device_hours=summary.device_hours)


def _line(cell: Cell, told: dict[str, Any]) -> str:
    saved = "no baseline attains as much" if told["saved"] is None else f"{told['saved']:.0%} saved"
    over = "-" if told["over_oracle"] is None else f"{told['over_oracle']:.2f} x oracle"
    met = f"{told['attainment']:.2%} met in {told['device_hours']:.2f} h"
    by = ", ".join(told["dominated_by"]) or "none"
    return f"{cell.trace} {cell.startup_s:g} s #{cell.seed}: {met}, {saved}, {over}, dominated by {by}"


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", action="append", help="a trace file; again for more")
    parser.add_argument("--gpu", default="h200", choices=sorted(BY_NAME), help="device of each replica (h200)")
    parser.add_argument("--startup", type=float, nargs="+", default=[20.0, 60.0, 120.0, 300.0], help="seconds")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one start-up time, one seed, every second knob")
    parser.add_argument("--out", help="file for the JSON; else it is printed")
    options = parser.parse_args(argv)
    if options.quick:
        options.startup, options.seeds = options.startup[1:2], 1
    return options


if __name__ == "__main__":
    main()
