"""Does the simulator foresee what a real fleet does? The same requests through both, with one replica and with two.

    python -m benchmarks.fidelity --quick
    python -m benchmarks.fidelity --replicas 1,2 --rounds 5 --output docs/evidence/fidelity.json

Real vLLM engines of the tiny model behind a real router, whose steps last 50 ms by `benchmarks.paced`: what is compared
is scheduling, queueing, batching and the choice of a replica. What a step lasts on a device is compared elsewhere
(`headrace calibrate --check`, `benchmarks.plan_accuracy`). What a step lasts to the millisecond, and the way between
client and engine, which the simulator leaves out, are measured on the idle fleet.
"""

import asyncio
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from autoscaling import Targets
from benchmarks.live_fleet import as_run, engine, fleet, kv_tokens, lengths, paced, played
from benchmarks.machine_facts import circumstances
from benchmarks.pace import STEP_S
from cluster.engine_memory import EngineSettings
from simulation.fleet import simulate
from simulation.outcome import Run, waits
from simulation.policy import headrace
from simulation.setup import Setup
from simulation.trace import Trace

NAME = "fidelity"
SLOTS, CONTEXT_TOKENS, STEP_TOKENS, BLOCK_TOKENS = 16, 512, 512, 16
CACHE_BYTES = 128 << 20
ENGINE = engine(slots=SLOTS, context_tokens=CONTEXT_TOKENS, step_tokens=STEP_TOKENS, cache_bytes=CACHE_BYTES)
LOADS = {"half": 0.5, "most": 0.85, "more": 1.15}
"""Shares of the tokens that the slots can make: light, heavy, and a queue that grows."""
ANSWER_TOKENS, PROMPT_TOKENS = 32, 96
"""In the mean; both are drawn from log-normal distributions."""
ALONE, ALONE_S, ALONE_TOKENS = 20, 1.0, 16
"""Requests that find the fleet idle, seconds from one to the next, and tokens of each answer."""
TOLERANCE = 0.15


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What users saw of a run."""

    ttft_p50_s: float
    ttft_p95_s: float
    token_s: float
    """From one token to the next: the median over answers."""
    tokens_per_s: float
    """From the first request to the last token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What the simulator is told of the machine, by medians."""

    step_s: float
    """From one token to the next where all slots are taken: a little longer than it should be."""
    path_s: float
    """To an idle engine and back: what a first token takes there beside its step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One load, once."""

    replicas: int
    load: str
    round: int
    requests: int
    told: Told
    live: Seen
    simulated: Seen

    def errors(self) -> dict[str, float]:
        """By how much the simulator is off, as a share of what was seen live."""
        live, simulated = asdict(self.live), asdict(self.simulated)
        return {name: simulated[name] / live[name] - 1 for name in live}


def requests(load: float, replicas: int, lasting_s: float, seed: int) -> Trace:
    """Arrivals by chance at a share of what so many replicas can make."""
    source = np.random.default_rng(seed)
    rate = load * replicas * SLOTS / STEP_S / ANSWER_TOKENS
    at_s = np.cumsum(source.exponential(1 / rate, size=round(rate * lasting_s)))
    prompts, answers = (lengths(source, mean, len(at_s)) for mean in (PROMPT_TOKENS, ANSWER_TOKENS))
    return Trace(at_s=at_s - at_s[0], prompt_tokens=prompts, output_tokens=answers)


def simulated(trace: Trace, replicas: int, cache_tokens: int, told: Told) -> Seen:
    """What the simulator says of engines with such steps, with the way to them and back, which it knows nothing of."""
    settings = EngineSettings(
        max_sequences=SLOTS, batched_tokens=STEP_TOKENS, context_tokens=CONTEXT_TOKENS, block_tokens=BLOCK_TOKENS
    )
    setup = Setup(
        settings=settings,
        kv_blocks=cache_tokens // BLOCK_TOKENS,
        step=lambda chunks: told.step_s,
        plans_ahead=False,
        min_replicas=replicas,
        max_replicas=replicas,
        begins_with=replicas,
    )
    targets = Targets()
    run = simulate(trace, setup, headrace(targets), targets)
    return seen(run, told.path_s)


def measured(url: str, replicas: int) -> Told:
    """Of requests one after the other, then of as many at once as there are slots. Raises as `live` does."""
    idle = live(url, _alike(ALONE, ALONE_S), seed=97)
    full = live(url, _alike(SLOTS * replicas, 0.0), seed=98)
    return Told(step_s=full.token_s, path_s=idle.ttft_p50_s - idle.token_s)


def _alike(count: int, apart_s: float) -> Trace:
    return Trace(
        at_s=np.arange(count, dtype=np.float64) * apart_s,
        prompt_tokens=np.full(count, PROMPT_TOKENS, dtype=np.int32),
        output_tokens=np.full(count, ALONE_TOKENS, dtype=np.int32),
    )


def live(url: str, trace: Trace, seed: int) -> Seen:
    """What users of a fleet saw. Raises httpx.HTTPError or AssertionError if a request fails."""
    return seen(as_run(trace, asyncio.run(played(url, trace, seed=seed, model_of=lambda place: "tiny"))))


def seen(run: Run, path_s: float = 0.0) -> Seen:
    """Figures of a run in which all were answered, with so much for the way."""
    ttft_s, token_s = waits(run)
    half, most = np.percentile(ttft_s + path_s, [50, 95])
    return Seen(
        ttft_p50_s=float(half),
        ttft_p95_s=float(most),
        token_s=float(np.median(token_s)),
        tokens_per_s=float(run.trace.output_tokens.sum()) / run.end_s,
    )


def compare(replicas: Sequence[int], rounds: int, lasting_s: float) -> Iterator[Pair]:
    """Every load in every round; live and simulated figures of the same requests."""
    for count in replicas:
        with fleet(NAME, paced({"tiny": count}, ENGINE)) as url:
            cache_tokens = kv_tokens(url)
            live(url, requests(0.5, count, 5.0, seed=99), seed=99)
            told = measured(url, count)
            print(f"{count} replicas: {told}", file=sys.stderr, flush=True)
            for number in range(1, rounds + 1):
                for load, share in LOADS.items():
                    trace = requests(share, count, lasting_s, seed=number)
                    found = live(url, trace, seed=1000 * count + number)
                    yield Pair(
                        replicas=count,
                        load=load,
                        round=number,
                        requests=trace.requests,
                        told=told,
                        live=found,
                        simulated=simulated(trace, count, cache_tokens, told),
                    )


def summary(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Of each load and number of replicas: the median error of each figure, and the least and the largest."""
    told = []
    for key in dict.fromkeys((pair.replicas, pair.load) for pair in pairs):
        errors = [pair.errors() for pair in pairs if (pair.replicas, pair.load) == key]
        for figure in errors[0]:
            each = sorted(error[figure] for error in errors)
            told.append(
                {"replicas": key[0], "load": key[1], "figure": figure, "median": statistics.median(each)}
                | {"least": each[0], "largest": each[-1]}
            )
    return told


def main(
    replicas: Annotated[str, typer.Option(help="Numbers of replicas, by commas.")] = "1,2",
    rounds: Annotated[int, typer.Option(min=1, help="Times that each load is sent, with other requests.")] = 5,
    seconds: Annotated[float, typer.Option(min=5, help="That a load lasts.")] = 30.0,
    quick: Annotated[bool, typer.Option("--quick", help="One replica, one round, 15 s a load.")] = False,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = Path("docs/evidence/fidelity.json"),
) -> None:
    """Plays the same requests through a real fleet and through the simulator."""
    counts, rounds, seconds = ([1], 1, 15.0) if quick else ([int(one) for one in replicas.split(",")], rounds, seconds)
    pairs = []
    for pair in compare(counts, rounds, seconds):
        pairs.append(pair)
        errors = ", ".join(f"{name} {error:+.1%}" for name, error in pair.errors().items())
        print(f"{pair.replicas} replicas, {pair.load}, round {pair.round}: {errors}", file=sys.stderr, flush=True)
    rows = summary(pairs)
    for row in rows:
        ends = f"{row['least']:+.1%} to {row['largest']:+.1%}"
        print(f"{row['replicas']} replicas, {row['load']:<5} {row['figure']:<13} {row['median']:+7.1%}  ({ends})")
    worst = max(abs(row["median"]) for row in rows)
    print(f"the largest of these medians: {worst:.1%} (wanted: within {TOLERANCE:.0%})")
    facts = circumstances()
    told = facts | {"step_s": STEP_S, "engine": ENGINE, "seconds": seconds}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(told | {"summary": rows, "pairs": [asdict(pair) for pair in pairs]}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
