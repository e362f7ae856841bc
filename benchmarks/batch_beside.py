"""What does a batch of 10,000 lines cost the users of a busy fleet, and how much of what they leave does it use?

    python -m benchmarks.batch_beside --rounds 3 --output docs/evidence/batch_beside.json

Real vLLM engines of the tiny model behind a real router, whose steps last 50 ms by `benchmarks.paced`. In each round
users come alone, then beside the batch: the same arrivals by chance, in tier interactive. What engines can make at most
is measured too: by users who all come at once.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from autoscaling import Targets
from benchmarks.live_fleet import Told, engine, lengths, paced, played
from benchmarks.live_fleet import fleet as live_fleet
from benchmarks.machine_facts import circumstances
from benchmarks.pace import STEP_S
from benchmarks.put_batch import begun, client_of, looked_at, uploaded
from simulation.trace import Trace

NAME = "batch-beside"
REPLICAS, SLOTS, CONTEXT_TOKENS, STEP_TOKENS, CACHE_BYTES = 2, 16, 512, 512, 128 << 20
LOADS = (0.5,)
"""Shares of the slots that users take."""
PROMPT_TOKENS, ANSWER_TOKENS, LINE_TOKENS = 96, 24, 8
"""Of users in the mean, and of each line's answer."""
MOST_S = 30.0
"""How long engines are given more than they can do, to see what that is."""
URGENT = {"service_tier": "priority"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Waits:
    """Of users: seconds to the first token."""

    requests: int
    p50_s: float
    p95_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """One load, once."""

    round: int
    load: float
    alone: Waits
    beside: Waits
    users_tokens_per_s: float
    batch_tokens_per_s: float
    most_tokens_per_s: float
    """That engines make of users' answers when more come than they can serve."""
    batch_s: float

    @property
    def cost(self) -> float:
        return self.beside.p95_s / self.alone.p95_s

    @property
    def used(self) -> float:
        """Share of what users leave."""
        return self.batch_tokens_per_s / (self.most_tokens_per_s - self.users_tokens_per_s)


def users(load: float, span_s: float, seed: int) -> Trace:
    """Arrivals by chance that take this share of the slots."""
    source = np.random.default_rng(seed)
    rate = load * REPLICAS * SLOTS / STEP_S / ANSWER_TOKENS
    at_s = np.cumsum(source.exponential(1 / rate, size=round(rate * span_s)))
    return _trace(source, at_s - at_s[0])


def crowd(span_s: float, seed: int) -> Trace:
    """More than the engines can answer in this time, all at once."""
    count = round(span_s * REPLICAS * SLOTS / STEP_S / ANSWER_TOKENS)
    return _trace(np.random.default_rng(seed), np.zeros(count))


def _trace(source: np.random.Generator, at_s: Any) -> Trace:
    prompts, answers = (lengths(source, mean, len(at_s)) for mean in (PROMPT_TOKENS, ANSWER_TOKENS))
    return Trace(at_s=at_s, prompt_tokens=prompts, output_tokens=answers)


async def come(url: str, trace: Trace, seed: int) -> list[Told]:
    return await played(url, trace, seed=seed, model_of=lambda place: "tiny", asked=lambda place: ({}, URGENT))


def waits(trace: Trace, told: Sequence[Told]) -> Waits:
    ttft_s = np.array([one.first_s for one in told]) - trace.at_s
    p50_s, p95_s = np.percentile(ttft_s, [50, 95])
    return Waits(requests=len(told), p50_s=float(p50_s), p95_s=float(p95_s))


def most_tokens_per_s(url: str) -> float:
    """While all slots are taken: what was made by the time that nine of ten had ended."""
    trace = crowd(MOST_S, seed=99)
    ends = sorted(asyncio.run(come(url, trace, seed=99)), key=lambda one: one.last_s)
    # In the order of their ends: answers are alike in length, whoever ends when.
    early = ends[: len(ends) * 9 // 10]
    return float(trace.output_tokens.mean()) * len(early) / early[-1].last_s


class Batches:
    """What OpenAI's client says of one batch after another."""

    def __init__(self, url: str, lines: int) -> None:
        self._client, self._lines = client_of(url), lines

    def begin(self, seed: int) -> str:
        """Returns once its lines are being asked."""
        source = np.random.default_rng(seed)
        name = begun(self._client, uploaded(self._client, (_body(source) for _ in range(self._lines))))
        while not self.done(name):
            time.sleep(0.1)
        return name

    def done(self, name: str) -> int:
        """Lines that have ended. Raises RuntimeError if one failed."""
        counts = looked_at(self._client, name).request_counts
        return counts.completed if counts else 0


def _body(source: np.random.Generator) -> dict[str, Any]:
    prompt = source.integers(100, 900, size=32).tolist()
    return {"model": "tiny", "prompt": prompt, "max_tokens": LINE_TOKENS, "ignore_eos": True, "temperature": 0}


async def beside(url: str, batches: Batches, name: str, lines: int, trace: Trace, seed: int) -> tuple[Any, float, int]:
    """What users were told who came while the batch ran, for how long that was, and how many lines it ended."""
    before = now = await asyncio.to_thread(batches.done, name)
    began_s = time.monotonic()
    coming = asyncio.ensure_future(come(url, trace, seed))
    while not coming.done() and (now := await asyncio.to_thread(batches.done, name)) < lines:
        await asyncio.sleep(0.5)
    took_s, ended = time.monotonic() - began_s, now - before
    return await coming, took_s, ended


def compared(rounds: int, loads: Sequence[float], span_s: float, lines: int, ttft_s: float) -> Iterator[Beside]:
    """Every load in every round."""
    arguments = engine(slots=SLOTS, context_tokens=CONTEXT_TOKENS, step_tokens=STEP_TOKENS, cache_bytes=CACHE_BYTES)
    with TemporaryDirectory() as folder:
        fields = paced({"tiny": REPLICAS}, arguments) | {"store": {"url": f"sqlite:///{folder}/store.sqlite"}}
        fields["scaling"] = {"ttft_s": ttft_s}
        with live_fleet(NAME, fields) as url:
            asyncio.run(come(url, users(0.5, 10.0, seed=98), seed=98))
            most, batches = most_tokens_per_s(url), Batches(url, lines)
            for number in range(1, rounds + 1):
                for load in loads:
                    yield once(url, batches, number, load, span_s, lines, most)


def once(url: str, batches: Batches, number: int, load: float, span_s: float, lines: int, most: float) -> Beside:
    """Users alone, then the same ones beside a batch, of which they see the first part or all."""
    trace, seed = users(load, span_s, number), 1000 * number + round(100 * load)
    alone = waits(trace, asyncio.run(come(url, trace, seed)))
    began_s, name = time.monotonic(), batches.begin(seed)
    told, took_s, ended = asyncio.run(beside(url, batches, name, lines, trace, seed + 1))
    while batches.done(name) < lines:
        time.sleep(0.5)
    batch_s = time.monotonic() - began_s
    here = trace.at_s <= took_s
    seen = [one for one, is_here in zip(told, here, strict=True) if is_here]
    part = Trace(
        at_s=trace.at_s[here], prompt_tokens=trace.prompt_tokens[here], output_tokens=trace.output_tokens[here]
    )
    return Beside(
        round=number,
        load=load,
        alone=alone,
        beside=waits(part, seen),
        users_tokens_per_s=float(part.output_tokens.sum()) / took_s,
        batch_tokens_per_s=ended * LINE_TOKENS / took_s,
        most_tokens_per_s=most,
        batch_s=batch_s,
    )


def table(found: Sequence[Beside]) -> str:
    """Medians of each load, with their spread."""
    lines = ["| users' share | p95 alone, beside, s | ratio | used of what is left |", "|---|---|---|---|"]
    for load in sorted({one.load for one in found}):
        here = [one for one in found if one.load == load]
        alone, late = (median(getattr(one, name).p95_s for one in here) for name in ("alone", "beside"))
        ratios = " | ".join(_spread([getattr(one, name) for one in here]) for name in ("cost", "used"))
        lines.append(f"| {load:.2f} | {alone:.3f}, {late:.3f} | {ratios} |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main(argv: Sequence[str] | None = None) -> None:
    """Plays all, prints what came, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS)
    parser.add_argument("--span", type=float, default=120.0, help="seconds over which users come (120)")
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument(
        "--ttft", type=float, default=Targets().ttft_s, help="seconds that the fleet promises (%(default)g)"
    )
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(argv)
    found: list[Beside] = []
    for one in compared(options.rounds, options.loads, options.span, options.lines, options.ttft):
        found.append(one)
        print(f"{one} cost {one.cost:.3f} used {one.used:.3f}", file=sys.stderr, flush=True)
        if options.output:
            facts = circumstances()
            facts |= {"step_s": STEP_S, "lines": options.lines, "slots": SLOTS}
            facts |= {"replicas": REPLICAS, "ttft_s": options.ttft}
            told = [asdict(one) | {"cost": one.cost, "used": one.used} for one in found]
            options.output.write_text(json.dumps(facts | {"found": told}, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
