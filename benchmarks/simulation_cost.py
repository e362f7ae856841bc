"""What does a simulation cost: CPU seconds for a day of requests with a decision each second, memory for a million?

    python -m benchmarks.simulation_cost --output docs/evidence/simulation_cost.json

Each is played in a process of its own, so that each one's memory is its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from math import pi
from pathlib import Path
from typing import Any

import numpy as np

from autoscaling import Targets
from benchmarks.machine_facts import circumstances
from benchmarks.scaling import setup
from simulation.fleet import simulate
from simulation.outcome import summary
from simulation.policy import headrace
from simulation.trace import Trace

DAY_S = 86_400
SIZES = (86_000, 1_000_000)
"""Requests of a day."""
GPU, STARTUP_S = "h200", 60.0


def day(requests: int, *, span_s: int = DAY_S, seed: int = 0) -> Trace:
    """By chance, three times as many at noon as at midnight; lengths are about those of Azure's conversations."""
    source = np.random.default_rng(seed)
    rate = 1 - 0.5 * np.cos(2 * pi * np.arange(span_s) / span_s)
    at_s = np.sort(source.choice(span_s, size=requests, p=rate / rate.sum()) + source.random(requests))
    prompts, answers = (
        np.clip(source.lognormal(mean, 0.9, requests), 1, most).astype(np.int32)
        for mean, most in ((6.6, 8_000), (4.9, 1_000))
    )
    return Trace(at_s=at_s - at_s[0], prompt_tokens=prompts, output_tokens=answers)


def measure(requests: int, *, span_s: int = DAY_S) -> dict[str, Any]:
    """Plays one day in this process."""
    made, targets, trace = setup(GPU, STARTUP_S), Targets(), day(requests, span_s=span_s)
    begun_s = time.process_time()
    run = simulate(trace, made, headrace(targets), targets)
    spent_s = time.process_time() - begun_s
    told = summary(run, targets)
    return {
        "requests": requests,
        "cpu_s": round(spent_s, 2),
        "most_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6),
        "seconds_simulated": round(run.end_s),
        "attainment": told.attainment,
        "device_hours": told.device_hours,
        "decisions_that_changed": told.decisions,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measures each size and writes or prints the figures."""
    options = _options(argv)
    if options.alone:
        print(json.dumps(measure(options.alone)))
        return
    found = []
    for requests in options.requests:
        command = [sys.executable, "-m", "benchmarks.simulation_cost", "--alone", str(requests)]
        found.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    result = circumstances() | {"runs": found}
    text = json.dumps(result, indent=1)
    Path(options.output).write_text(text + "\n") if options.output else print(text)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--requests", type=int, nargs="+", default=list(SIZES), help="of a day; several for several runs"
    )
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--output", help="file for the JSON; else it is printed")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
