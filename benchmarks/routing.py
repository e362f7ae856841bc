"""How do routers compare over the same requests and the same engines, in virtual time? Prints a table, writes JSON.

    python -m benchmarks.routing --quick
    python -m benchmarks.routing --traces ../shared/data/traces --out docs/evidence/routing.json

Headrace's routing as it runs live, beside those of simulation/choosers.py. Ratios are of Headrace's figure to another's
of the same seed: their mean, the least and the most.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from autoscaling import Targets
from benchmarks.routing_scene import CONTEXT_TOKENS, WARM, busy_s, fleet, ideal_tokens, loaded, step_costs, sweep
from cluster.device_facts import BY_NAME
from simulation.baselines import Wanted
from simulation.choosers import CHOOSERS
from simulation.desk import Desk
from simulation.dispatcher import MakeDispatcher
from simulation.early import Early
from simulation.fleet import simulate
from simulation.outcome import Run
from simulation.policy import Observed
from simulation.setup import Setup
from simulation.trace import Trace, read

OURS = "headrace"
ROUTERS: Mapping[str, MakeDispatcher] = {OURS: Desk} | {
    name: partial(Early, chooser=chooser) for name, chooser in CHOOSERS.items()
}
AGENTS = "agent_sessions/miniswe_blocks16.jsonl.gz"
CHATS = "mooncake_synthetic/synthetic_trace.jsonl"
SHORT = "servegen_small/requests_2h_burst_mean4rps.csv.gz"
AZURE = "azure2023_conv/AzureLLMInferenceTrace_conv.csv"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What comes, and to which engines."""

    name: str
    trace: str
    load: float
    """1: steps would take the target for a token in the mean, if caches were one and endless."""
    slowness: tuple[float, ...] = ()
    """Of the first replicas."""


SCENES = (
    Scene(name="agents, light", trace=AGENTS, load=0.3),
    Scene(name="agents", trace=AGENTS, load=0.6),
    Scene(name="agents, heavy", trace=AGENTS, load=0.8),
    Scene(name="chats", trace=CHATS, load=0.6),
    Scene(name="short", trace=SHORT, load=0.6),
    Scene(name="azure", trace=AZURE, load=0.8),
    Scene(name="agents, one slow", trace=AGENTS, load=0.4, slowness=(4.0,)),
    Scene(name="azure, one slow", trace=AZURE, load=0.6, slowness=(4.0,)),
)
QUICK = (SCENES[1], SCENES[4], SCENES[6])


@dataclass(frozen=True, kw_only=True)
class Point:
    """One router in a scene, with so many replicas and one seed. Of requests that came once caches were warm."""

    scene: str
    replicas: int
    seed: int
    router: str
    requests: int
    ttft_p50_s: float
    ttft_p95_s: float
    ttft_mean_s: float
    token_p50_s: float
    token_p95_s: float
    found: float | None
    """Tokens of prompts that were found in caches, over those of one endless cache; None where nothing is shared."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the grid, prints each scene as a table, and writes what there is by then."""
    options = _options(argv)
    sweep([one for one in SCENES if one.name in options.scene], options, played=played, table=table, more=_more)


def _more(points: Sequence[Point]) -> dict[str, Any]:
    return {"scenes": [asdict(scene) for scene in SCENES], "ratios": ratios(points)}


def played(scene: Scene, replicas: int, seed: int, options: argparse.Namespace) -> Iterator[Point]:
    """Every router with the same requests."""
    setup = fleet(options.gpu, replicas, scene.slowness)
    base = read(Path(options.traces) / scene.trace).fitting(CONTEXT_TOKENS)
    costs = step_costs(setup, base)
    work_s = busy_s(setup, costs, scene.load)
    trace = loaded(base, costs, busy_s=work_s, span_s=options.span, seed=seed)
    for name, desk in ROUTERS.items():
        begun_s = time.perf_counter()
        run = run_of(trace, setup, desk, seed)
        print(f"{scene.name} {replicas} #{seed} {name}: {time.perf_counter() - begun_s:.1f} s", file=sys.stderr)
        yield point(run, WARM * options.span, scene=scene.name, replicas=replicas, seed=seed, router=name)


def run_of(trace: Trace, setup: Setup, desk: MakeDispatcher, seed: int) -> Run:
    """With as many replicas as it begins with."""

    def always(seen: Observed, memory: Any) -> tuple[Wanted, Any]:
        return Wanted(replicas=setup.begins_with, reason="as ever"), memory

    return simulate(trace, setup, always, Targets(), seed=seed, desk=desk)


def point(run: Run, from_s: float, **told: Any) -> Point:
    """Figures of what came from then on."""
    trace = run.trace
    counted = trace.at_s >= from_s
    ttft_s = (run.first_s - trace.at_s)[counted]
    token_s = ((run.last_s - run.first_s) / np.maximum(1, trace.output_tokens - 1))[counted & (trace.output_tokens > 1)]
    ideal = int(ideal_tokens(trace)[counted].sum())
    return Point(
        requests=int(counted.sum()),
        ttft_p50_s=float(np.quantile(ttft_s, 0.5)),
        ttft_p95_s=float(np.quantile(ttft_s, 0.95)),
        ttft_mean_s=float(ttft_s.mean()),
        token_p50_s=float(np.quantile(token_s, 0.5)),
        token_p95_s=float(np.quantile(token_s, 0.95)),
        found=float(run.found_tokens[counted].sum() / ideal) if ideal else None,
        **told,
    )


def ratios(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Headrace's TTFT over each other router's, seed by seed: mean, least and most."""
    found = []
    for scene, replicas in dict.fromkeys((one.scene, one.replicas) for one in points):
        here = [one for one in points if (one.scene, one.replicas) == (scene, replicas)]
        ours = {one.seed: one for one in here if one.router == OURS}
        for router in dict.fromkeys(one.router for one in here if one.router != OURS):
            theirs = [one for one in here if one.router == router]
            found.append(
                {
                    "scene": scene,
                    "replicas": replicas,
                    "router": router,
                    "ttft_p50": _spread([ours[one.seed].ttft_p50_s / one.ttft_p50_s for one in theirs]),
                    "ttft_p95": _spread([ours[one.seed].ttft_p95_s / one.ttft_p95_s for one in theirs]),
                }
            )
    return found


def table(points: Sequence[Point], scene: str, replicas: int) -> str:
    """Of one scene: a line for each router."""
    here = [one for one in points if (one.scene, one.replicas) == (scene, replicas)]
    by_router = {name: [one for one in here if one.router == name] for name in ROUTERS}
    against = {one["router"]: one for one in ratios(here)}
    lines = [
        f"\n{scene}, {replicas} replicas, {by_router[OURS][0].requests} requests, {len(by_router[OURS])} seeds",
        f"{'router':14} {'TTFT p50':>9} {'p95':>9} {'token p50':>10} {'found':>6}   headrace over it: p50, p95",
    ]
    for name, ones in by_router.items():
        lines.append(
            f"{name:14} {_mean(ones, 'ttft_p50_s'):8.3f}s {_mean(ones, 'ttft_p95_s'):8.3f}s "
            f"{1000 * _mean(ones, 'token_p50_s'):8.1f}ms {_mean(ones, 'found'):6.3f}   {_told(against.get(name))}"
        )
    return "\n".join(lines)


def _told(ratio: dict[str, Any] | None) -> str:
    if ratio is None:
        return ""
    return ", ".join("{mean:.2f} ({least:.2f}, {most:.2f})".format(**ratio[name]) for name in ("ttft_p50", "ttft_p95"))


def _mean(points: Sequence[Point], name: str) -> float:
    values = [getattr(one, name) for one in points]
    return float("nan") if None in values else mean(values)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": mean(values), "least": min(values), "most": max(values)}


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", default="../shared/data/traces", help="folder of the traces")
    parser.add_argument("--gpu", default="h200", choices=sorted(BY_NAME), help="device of each replica (h200)")
    names = [scene.name for scene in SCENES]
    parser.add_argument("--scene", action="append", choices=names, help="one of them; again for more (all)")
    parser.add_argument("--replicas", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--span", type=float, default=90.0, help="seconds over which requests come (90)")
    parser.add_argument("--quick", action="store_true", help="three scenes, 4 and 16 replicas, one seed, 45 s")
    parser.add_argument("--out", help="file for the JSON")
    options = parser.parse_args(argv)
    if options.quick:
        options.replicas, options.seeds, options.span = [4, 16], 1, 45.0
    options.scene = options.scene or ([scene.name for scene in QUICK] if options.quick else names)
    return options


if __name__ == "__main__":
    main()
