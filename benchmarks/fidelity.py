"""Does the simulator foresee what a real fleet does? The same requests through both, with one replica and with two.

    python -m benchmarks.fidelity --quick
    python -m benchmarks.fidelity --replicas 1,2 --rounds 5 --output docs/evidence/fidelity.json

Real vLLM engines of the tiny model behind a real router, whose steps last 50 ms by `benchmarks.paced`: what is compared
is scheduling, queueing, batching and the choice of a replica. What a step lasts on a device is compared elsewhere
(`headrace calibrate --check`, `benchmarks.plan_accuracy`).
"""

import asyncio
import json
import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer
import yaml

from autoscaling import Targets
from benchmarks.machine_facts import machine_facts, versions
from benchmarks.pace import STEP_S
from benchmarks.servers import free_port
from cluster.engine_memory import EngineSettings
from headrace.folders import made, run_folder
from simulation.fleet import simulate
from simulation.outcome import waits
from simulation.policy import headrace
from simulation.setup import Setup
from simulation.trace import Trace

NAME = "fidelity"
SLOTS, CONTEXT_TOKENS, STEP_TOKENS, BLOCK_TOKENS = 16, 512, 512, 16
CACHE_BYTES = 128 << 20
ENGINE: dict[str, Any] = {
    "dtype": "float32",
    "max_model_len": CONTEXT_TOKENS,
    "max_num_seqs": SLOTS,
    "max_num_batched_tokens": STEP_TOKENS,
    "kv_cache_memory_bytes": CACHE_BYTES,
    "scheduler_cls": "benchmarks.paced.PacedScheduler",
}
LOADS = {"half": 0.5, "most": 0.85, "more": 1.15}
"""Shares of the tokens that the slots can make: light, heavy, and a queue that grows."""
ANSWER_TOKENS, PROMPT_TOKENS = 32, 96
"""In the mean; both are drawn from log-normal distributions."""
VOCABULARY = range(100, 900)
"""Of which prompts are drawn, so that no two share a prefix."""
TOLERANCE = 0.15
PATIENCE_S = 600.0


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
class Pair:
    """One load, once."""

    replicas: int
    load: str
    round: int
    requests: int
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
    prompts, answers = (
        np.clip(source.lognormal(np.log(mean) - 0.125, 0.5, len(at_s)), 2, 240).astype(np.int32)
        for mean in (PROMPT_TOKENS, ANSWER_TOKENS)
    )
    return Trace(at_s=at_s - at_s[0], prompt_tokens=prompts, output_tokens=answers)


def simulated(trace: Trace, replicas: int, kv_tokens: int) -> Seen:
    """What the simulator says."""
    settings = EngineSettings(
        max_sequences=SLOTS, batched_tokens=STEP_TOKENS, context_tokens=CONTEXT_TOKENS, block_tokens=BLOCK_TOKENS
    )
    setup = Setup(
        settings=settings,
        kv_blocks=kv_tokens // BLOCK_TOKENS,
        step=lambda chunks: STEP_S,
        plans_ahead=False,
        min_replicas=replicas,
        max_replicas=replicas,
        begins_with=replicas,
    )
    targets = Targets()
    run = simulate(trace, setup, headrace(targets), targets)
    ttft_s, token_s = waits(run)
    return _seen(ttft_s.tolist(), token_s.tolist(), int(trace.output_tokens.sum()), float(run.last_s.max()))


async def played(url: str, trace: Trace, seed: int) -> Seen:
    """The same requests, sent to a fleet at their times. Raises httpx.HTTPError or AssertionError if one fails."""
    source, began_s = np.random.default_rng(seed), time.monotonic()
    times: list[tuple[float, float, int]] = []

    async def one(http: httpx.AsyncClient, at_s: float, prompt_tokens: int, output_tokens: int) -> None:
        ids = source.choice(np.array(VOCABULARY), size=prompt_tokens).tolist()
        body = {"model": "tiny", "prompt": ids, "max_tokens": output_tokens, "ignore_eos": True, "stream": True}
        await asyncio.sleep(max(0.0, began_s + at_s - time.monotonic()))
        sent_s, stamps = time.monotonic(), []
        async with http.stream("POST", "/v1/completions", json=body) as answer:
            assert answer.status_code == 200, await answer.aread()
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    stamps.append(time.monotonic())
        times.append((stamps[0] - sent_s, (stamps[-1] - stamps[0]) / max(1, output_tokens - 1), output_tokens))

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with (
        httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False, limits=limits) as http,
        asyncio.TaskGroup() as group,
    ):
        for at_s, prompt_tokens, output_tokens in zip(
            trace.at_s.tolist(), trace.prompt_tokens.tolist(), trace.output_tokens.tolist(), strict=True
        ):
            group.create_task(one(http, at_s, prompt_tokens, output_tokens))
    lasted_s = time.monotonic() - began_s
    ttft_s, token_s, tokens = (list(each) for each in zip(*times, strict=True))
    return _seen(ttft_s, token_s, sum(tokens), lasted_s)


def _seen(ttft_s: Sequence[float], token_s: Sequence[float], tokens: int, lasted_s: float) -> Seen:
    half, most = np.percentile(ttft_s, [50, 95])
    return Seen(
        ttft_p50_s=float(half),
        ttft_p95_s=float(most),
        token_s=statistics.median(token_s),
        tokens_per_s=tokens / lasted_s,
    )


@contextmanager
def fleet(replicas: int) -> Iterator[str]:
    """URL of a fleet with so many replicas, which is gone afterwards."""
    port, root = free_port(), str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment, command = os.environ | {"PYTHONPATH": path}, [sys.executable, "-m", "headrace"]
    model = {"name": "tiny", "source": "tiny", "engine": ENGINE, "replicas": {"min": replicas, "max": replicas}}
    try:
        with made(run_folder(f"{NAME}-{secrets.token_hex(4)}")) as place:
            file = place / "fleet.yaml"
            file.write_text(yaml.safe_dump({"models": [model], "router": {"port": port}}))
            started = [*command, "serve", str(file), "--detach", "--name", NAME]
            subprocess.run(started, stdout=sys.stderr, env=environment, check=True)
        url = f"http://127.0.0.1:{port}"
        _await_all(url, replicas)
        yield url
    finally:
        subprocess.run([*command, "stop", "--name", NAME], stdout=sys.stderr, check=False)


def _await_all(url: str, replicas: int) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while len(_gauges(url, "headrace_replica_kv_free_tokens")) < replicas:
        if time.monotonic() > end_s:
            raise typer.TyperException(f"not all of {replicas} replicas came within {PATIENCE_S:.0f} s")
        time.sleep(0.5)


def _gauges(url: str, name: str) -> list[float]:
    text = httpx.get(f"{url}/metrics", trust_env=False).raise_for_status().text
    return [float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name}{{")]


def compare(replicas: Sequence[int], rounds: int, lasting_s: float) -> Iterator[Pair]:
    """Every load in every round; live and simulated figures of the same requests."""
    for count in replicas:
        with fleet(count) as url:
            kv_tokens = int(min(_gauges(url, "headrace_replica_kv_free_tokens")))
            asyncio.run(played(url, requests(0.5, count, 5.0, seed=99), seed=99))
            for number in range(1, rounds + 1):
                for load, share in LOADS.items():
                    trace = requests(share, count, lasting_s, seed=number)
                    live = asyncio.run(played(url, trace, seed=1000 * count + number))
                    told = simulated(trace, count, kv_tokens)
                    yield Pair(
                        replicas=count, load=load, round=number, requests=trace.requests, live=live, simulated=told
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
    facts = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine_facts()}
    told = facts | {"versions": versions(), "step_s": STEP_S, "engine": ENGINE, "seconds": seconds}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(told | {"summary": rows, "pairs": [asdict(pair) for pair in pairs]}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
