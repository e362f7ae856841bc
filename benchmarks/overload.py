"""What do users get from each router when twice as much comes as engines can serve? Virtual time; a table and JSON.

    python -m benchmarks.overload --quick
    python -m benchmarks.overload --traces ../shared/data/traces --out docs/evidence/overload.json

Requests are interactive, standard or batch by lot. Headrace is told so, with deadlines for the first two as fleet.yaml
or the requests would name them, and keeps as many waiting as by default; the others, which bind early, have no use for
it. Capacity is what one engine serves that always has something waiting, in its own queue or in a router, whichever is
more, times the replicas.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.routing import AZURE, OURS, ROUTERS, SHORT, run_of
from benchmarks.routing_scene import CONTEXT_TOKENS, WARM, fleet, sweep
from cluster.device_facts import BY_NAME
from deployments.fleet import RouterSettings
from routing import Request, Tier
from simulation.desk import Desk
from simulation.dispatcher import MakeDispatcher
from simulation.outcome import Run
from simulation.setup import Setup
from simulation.trace import Trace, read

TARGET_S = (1.0, 10.0, inf)
"""By tier, within how many seconds a first token is worth something."""
BACKLOG = 1500
"""Requests that one engine is given at once, to see what it can serve."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Who comes."""

    name: str
    trace: str
    shares: tuple[float, float, float]
    """Of requests, by tier."""
    times: float = 2.0
    """As much as can be served."""


SCENES = (
    Scene(name="azure, all tiers", trace=AZURE, shares=(0.3, 0.3, 0.4)),
    Scene(name="azure, interactive", trace=AZURE, shares=(1.0, 0.0, 0.0)),
    Scene(name="short, all tiers", trace=SHORT, shares=(0.3, 0.3, 0.4)),
)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One router in a scene, of what came or was served once queues were full."""

    scene: str
    replicas: int
    seed: int
    router: str
    interactive_ttft_p50_s: float
    interactive_ttft_p95_s: float
    """Of those that were answered."""
    met: tuple[float | None, ...]
    """By tier, the share of requests that came and had their first token within the target; refused ones had none."""
    goodput: float
    """Tokens per second of prompts and answers that began within their targets, over the capacity."""
    served: float
    """The same of all."""
    refused: float
    """Share of requests."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the scenes, prints each as a table, and writes what there is by then."""
    options = _options(argv)
    sweep(SCENES[:2] if options.quick else SCENES, options, played=played, table=table, more=_more)


def _more(points: Sequence[Point]) -> dict[str, Any]:
    return {
        "targets_s": [value if value < inf else None for value in TARGET_S],
        "scenes": [asdict(scene) for scene in SCENES],
    }


def played(scene: Scene, replicas: int, seed: int, options: argparse.Namespace) -> Iterator[Point]:
    """Every router with the same requests."""
    waiting = RouterSettings().max_queued_requests
    setup = replace(fleet(options.gpu, replicas), max_queued_requests=waiting)
    base = read(Path(options.traces) / scene.trace).fitting(CONTEXT_TOKENS)
    capacity = replicas * capacity_per_s(fleet(options.gpu, 1), base, seed)
    trace = drawn(base, scene.times * capacity, options.span, seed)
    tiers = np.random.default_rng(seed).choice(len(Tier), size=trace.requests, p=scene.shares)
    for name in ROUTERS:
        begun_s = time.perf_counter()
        run = run_of(trace, setup, told_tiers(tiers) if name == OURS else ROUTERS[name], seed)
        print(f"{scene.name} {replicas} #{seed} {name}: {time.perf_counter() - begun_s:.1f} s", file=sys.stderr)
        told = {"scene": scene.name, "replicas": replicas, "seed": seed, "router": name}
        yield point(run, tiers, capacity=capacity, span_s=options.span, **told)


def capacity_per_s(setup: Setup, base: Trace, seed: int) -> float:
    """Tokens per second of prompts and answers that one engine serves which never runs dry."""
    places = np.random.default_rng(seed).integers(base.requests, size=BACKLOG)
    trace, found = base.taken(places, np.linspace(0, 1e-3, BACKLOG)), list[float]()
    for name in ("round_robin", OURS):
        run = run_of(trace, setup, ROUTERS[name], seed)
        found.append(steady_per_s(run.last_s, tokens(run.trace)))
    return max(found)


def steady_per_s(last_s: NDArray[np.float64], tokens: NDArray[np.int64]) -> float:
    """Tokens per second of a backlog's requests, by when each ended, while an engine neither fills nor empties."""
    begin_s, end_s = np.quantile(last_s, (0.2, 0.8))
    return float(tokens[(last_s > begin_s) & (last_s <= end_s)].sum() / (end_s - begin_s))


def drawn(base: Trace, tokens_per_s: float, span_s: float, seed: int) -> Trace:
    """Requests drawn by lot that come by chance, evenly over the time."""
    source = np.random.default_rng(seed)
    count = int(tokens_per_s * span_s / float(tokens(base).mean()))
    return base.taken(source.integers(base.requests, size=count), source.uniform(0, span_s, size=count))


def point(run: Run, tiers: NDArray[Any], *, capacity: float, span_s: float, **told: Any) -> Point:
    """Who came after WARM of the time counts by arrival; tokens count by when their first one came."""
    trace, from_s = run.trace, WARM * span_s
    ttft_s = run.first_s - trace.at_s
    met = ttft_s <= np.array(TARGET_S)[tiers]
    met &= np.isfinite(run.last_s)
    came = trace.at_s >= from_s
    began = (run.first_s >= from_s) & (run.first_s < span_s)
    interactive = ttft_s[came & (tiers == Tier.INTERACTIVE) & np.isfinite(run.first_s)]
    per_s = tokens(trace) / (span_s - from_s) / capacity
    return Point(
        interactive_ttft_p50_s=float(np.quantile(interactive, 0.5)),
        interactive_ttft_p95_s=float(np.quantile(interactive, 0.95)),
        met=tuple(float(met[came & (tiers == tier)].mean()) if (tiers == tier).any() else None for tier in Tier),
        goodput=float(per_s[began & met].sum()),
        served=float(per_s[began].sum()),
        refused=run.refused / trace.requests,
        **told,
    )


def table(points: Sequence[Point], scene: str, replicas: int) -> str:
    """Of one scene: a line for each router, means over seeds."""
    here = [one for one in points if (one.scene, one.replicas) == (scene, replicas)]
    lines = [
        f"\n{scene}, {replicas} replicas, {len({one.seed for one in here})} seeds",
        f"{'router':14} {'TTFT p50':>9} {'p95':>9}  {'met: int':>8} {'std':>5} {'batch':>5} "
        f"{'goodput':>8} {'served':>7} {'refused':>7}",
    ]
    for name in [name for name in ROUTERS if any(one.router == name for one in here)]:
        ones = [one for one in here if one.router == name]
        met = [_mean([one.met[tier] for one in ones]) for tier in Tier]
        lines.append(
            f"{name:14} {_mean([one.interactive_ttft_p50_s for one in ones]):8.3f}s "
            f"{_mean([one.interactive_ttft_p95_s for one in ones]):8.3f}s  {met[0]:8.2f} {met[1]:5.2f} {met[2]:5.2f} "
            f"{_mean([one.goodput for one in ones]):8.3f} {_mean([one.served for one in ones]):7.3f} "
            f"{_mean([one.refused for one in ones]):7.2f}"
        )
    return "\n".join(lines)


def told_tiers(tiers: NDArray[Any]) -> MakeDispatcher:
    """A desk of Headrace's that knows each request's tier and deadline."""

    def asked(request: Request) -> Request:
        tier = Tier(int(tiers[request.id]))
        return replace(request, tier=tier, deadline_s=request.arrived_s + TARGET_S[tier])

    return partial(Desk, asked=asked)


def tokens(trace: Trace) -> NDArray[np.int64]:
    """Of prompt and answer, by request."""
    return trace.prompt_tokens.astype(np.int64) + trace.output_tokens


def _mean(values: Sequence[float | None]) -> float:
    found = [value for value in values if value is not None]
    return mean(found) if found else float("nan")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", default="../shared/data/traces", help="folder of the traces")
    parser.add_argument("--gpu", default="h200", choices=sorted(BY_NAME), help="device of each replica (h200)")
    parser.add_argument("--replicas", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--span", type=float, default=90.0, help="seconds over which requests come (90)")
    parser.add_argument("--quick", action="store_true", help="two scenes, 4 replicas, one seed, 60 s")
    parser.add_argument("--out", help="file for the JSON")
    options = parser.parse_args(argv)
    if options.quick:
        options.replicas, options.seeds, options.span = [4], 1, 60.0
    return options


if __name__ == "__main__":
    main()
