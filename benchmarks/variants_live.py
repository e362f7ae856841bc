"""What do a model and a cheaper variant of it, two real engines, carry together when twice as much comes?

    headrace compress smollm2 --to w8a8
    python -m benchmarks.variants_live --variant smollm2-w8a8 --quick
    python -m benchmarks.variants_live --variant smollm2-w8a8 --out docs/evidence/variants_live.json

Each engine computes on a core of its own. In each round the same requests come in three ways, in an order by lot:

- alone: all ask for the model itself, as if there were no variant;
- apart: half ask for the model and half for the variant, whatever waits where: what both can carry at the same time;
- free: the router chooses. A fifth of the requests ask for more quality than the variant has.

Goodput is the tokens per second, of prompts and answers, of the requests whose first token came in time.
"""

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.live_fleet import Told, fleet, lengths, played
from benchmarks.machine_facts import circumstances
from benchmarks.overload import steady_per_s, tokens
from compress.report import Interval
from compress.statistics import paired_ratio
from simulation.trace import Trace

NAME, MODEL, VARIANT = "variants-live", "model", "cheaper"
TARGET_S = 2.0
"""Within which a first token is worth something: the fleet's target, and the requests' deadline."""
PROMPT_TOKENS, ANSWER_TOKENS = 160, 24
TIMES = 2.0
"""As much as both can serve."""
WARM = 0.25
"""Share of the time until queues are full."""
BACKLOG = 80
"""Requests that each is given at once, to see what both can serve."""
LOYAL_SHARE = 0.2
WAYS = ("alone", "apart", "free")
ENGINE = {"max_model_len": 512, "max_num_seqs": 16, "max_num_batched_tokens": 512, "kv_cache_memory_bytes": 512 << 20}

Asks = dict[str, str]
BEST: Asks = {"x-headrace-min-quality": "1"}
CHEAPEST: Asks = {"x-headrace-prefer": "cost"}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One way, once, of what came or began once queues were full."""

    round: int
    way: str
    requests: int
    goodput: dict[str, float]
    """Tokens per second, by who answered."""
    met: float
    """Share of requests with a first token in time; refused ones had none."""
    refused: float
    ttft_p50_s: float
    ttft_p95_s: float
    """Of those that were answered."""
    answers: dict[str, int]
    """By who gave them, in all."""
    loyal_answers: dict[str, int]
    """Of those who asked for more quality than the variant has."""

    @property
    def sum(self) -> float:
        """Goodput of all that answered."""
        return sum(self.goodput.values())


def fields(source: str, variant: str, quality: float | None) -> dict[str, Any]:
    """Of the fleet's file."""
    cheaper = {"name": VARIANT, "source": variant, "quality": quality}
    return {
        "models": [{"name": MODEL, "source": source, "engine": ENGINE, "variants": [cheaper]}],
        "scaling": {"ttft_s": TARGET_S},
    }


def drawn(source: np.random.Generator, count: int, span_s: float) -> Trace:
    """Requests that come by chance, evenly over the time."""
    at_s = np.sort(source.uniform(0, span_s, size=count))
    prompts, answers = (lengths(source, mean, count) for mean in (PROMPT_TOKENS, ANSWER_TOKENS))
    return Trace(at_s=at_s - at_s[0], prompt_tokens=prompts, output_tokens=answers)


def asked(way: str, requests: int, quality: float, source: np.random.Generator) -> list[Asks]:
    """What each request says of variants."""
    lots = source.random(requests)
    if way == "alone":
        return [BEST] * requests
    if way == "apart":
        return [BEST if lot < 0.5 else CHEAPEST for lot in lots]
    loyal = {"x-headrace-min-quality": f"{(1 + quality) / 2:.4g}"}
    return [loyal if lot < LOYAL_SHARE else {} for lot in lots]


def point(trace: Trace, told: Sequence[Told], asks: Sequence[Asks], *, number: int, way: str, span_s: float) -> Point:
    """Raises AssertionError where the variant answered who asked for more."""
    from_s, each = WARM * span_s, tokens(trace)
    first_s, last_s = (np.array([getattr(one, name) for one in told]) for name in ("first_s", "last_s"))
    by = np.array([one.variant for one in told])
    ttft_s, came = first_s - trace.at_s, trace.at_s >= from_s
    met = (ttft_s <= TARGET_S) & np.isfinite(last_s)
    began = (first_s >= from_s) & (first_s < span_s) & met
    answered = ttft_s[came & np.isfinite(first_s)]
    loyal = Counter(one.variant for one, ask in zip(told, asks, strict=True) if one.variant and _loyal(ask))
    assert VARIANT not in loyal, f"{way}: {loyal[VARIANT]} answers of less quality than was asked"
    return Point(
        round=number,
        way=way,
        requests=trace.requests,
        goodput={name: float(each[began & (by == name)].sum() / (span_s - from_s)) for name in (MODEL, VARIANT)},
        met=float(met[came].mean()),
        refused=float((~np.isfinite(last_s)).mean()),
        ttft_p50_s=float(np.quantile(answered, 0.5)),
        ttft_p95_s=float(np.quantile(answered, 0.95)),
        answers=dict(Counter(one.variant for one in told if one.variant)),
        loyal_answers=dict(loyal),
    )


def _loyal(ask: Asks) -> bool:
    return "x-headrace-min-quality" in ask


class Bench:
    """The fleet, for as long as it runs."""

    def __init__(self, url: str, span_s: float) -> None:
        self._url, self._span_s = url, span_s
        self.qualities = _qualities(url)
        self.capacity = self._capacity_per_s()

    def round(self, number: int) -> Iterator[Point]:
        """Every way, with the same requests."""
        count = round(TIMES * self.capacity * self._span_s / (PROMPT_TOKENS + ANSWER_TOKENS))
        trace = drawn(np.random.default_rng(number), count, self._span_s)
        for way in Random(number).sample(WAYS, len(WAYS)):
            asks = asked(way, count, self.qualities[VARIANT], np.random.default_rng(1000 + number))
            # Other words each time: nothing is in the caches but what this run brings.
            told = self._play(trace, asks, seed=10 * number + WAYS.index(way), deadline_s=TARGET_S)
            yield point(trace, told, asks, number=number, way=way, span_s=self._span_s)

    def _capacity_per_s(self) -> float:
        """Tokens per second of prompts and answers that both serve while something always waits for each."""
        count = 2 * BACKLOG
        trace = drawn(np.random.default_rng(0), count, 1e-3)
        told = self._play(trace, [BEST, CHEAPEST] * BACKLOG, seed=0, deadline_s=inf)
        by, last_s = np.array([one.variant for one in told]), np.array([one.last_s for one in told])
        return sum(steady_per_s(last_s[by == name], tokens(trace)[by == name]) for name in (MODEL, VARIANT))

    def _play(self, trace: Trace, asks: Sequence[Asks], *, seed: int, deadline_s: float) -> list[Told]:
        late = {"x-headrace-deadline-s": f"{deadline_s:g}"} if deadline_s < inf else {}
        return asyncio.run(
            played(
                self._url,
                trace,
                seed=seed,
                model_of=lambda place: MODEL,
                asked=lambda place: (asks[place] | late, {}),
            )
        )


def _qualities(url: str) -> dict[str, float]:
    (card,) = httpx.get(f"{url}/v1/models", trust_env=False).raise_for_status().json()["data"]
    return {one["name"]: one["quality"] for one in card["variants"]}


def ratios(points: Sequence[Point]) -> dict[str, Interval]:
    """Over rounds: what is carried freely over what both carry apart, and over the model alone; the variant's share."""
    by = {way: [one for one in points if one.way == way] for way in WAYS}
    sums: dict[str, NDArray[np.float64]] = {way: np.array([one.sum for one in ones]) for way, ones in by.items()}
    each = {name: np.array([one.goodput[name] for one in by["apart"]]) for name in (MODEL, VARIANT)}
    return {
        "free / apart": paired_ratio(artefact=sums["free"], parent=sums["apart"]),
        "free / alone": paired_ratio(artefact=sums["free"], parent=sums["alone"]),
        "variant / model, apart": paired_ratio(artefact=each[VARIANT], parent=each[MODEL]),
    }


def table(points: Sequence[Point]) -> str:
    """Means over rounds of each way, and the ratios with their 95 % intervals."""
    lines = ["way    goodput tokens/s   model  variant   met  refused   TTFT p50    p95"]
    for way in WAYS:
        ones = [one for one in points if one.way == way]
        model, variant = (np.mean([one.goodput[name] for one in ones]) for name in (MODEL, VARIANT))
        met, refused, p50_s, p95_s = (
            np.mean([getattr(one, name) for one in ones]) for name in ("met", "refused", "ttft_p50_s", "ttft_p95_s")
        )
        lines.append(
            f"{way:6} {model + variant:16.0f} {model:7.0f} {variant:8.0f} {met:5.2f} {refused:8.2f} "
            f"{p50_s:8.2f} s {p95_s:5.2f} s"
        )
    for name, one in ratios(points).items():
        lines.append(f"{name}: {one.value:.3f} ({one.low:.3f} to {one.high:.3f})")
    loyal = sum(sum(one.loyal_answers.values()) for one in points if one.way == "free")
    return "\n".join([*lines, f"{loyal} answers to who asked for more quality, all by the model itself"])


def main(argv: Sequence[str] | None = None) -> None:
    """Plays all, prints what came, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="smollm2", help="the model (smollm2)")
    parser.add_argument("--variant", required=True, help="an artefact of it: its name or folder")
    parser.add_argument("--quality", type=float, help="of the variant; else its report says so")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--span", type=float, default=40.0, help="seconds over which requests come (40)")
    parser.add_argument("--quick", action="store_true", help="one round of 15 s")
    parser.add_argument("--out", help="file for the JSON")
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.span = 1, 15.0
    points = list[Point]()
    with fleet(NAME, fields(options.source, options.variant, options.quality)) as url:
        bench = Bench(url, options.span)
        print(f"{bench.qualities}, {bench.capacity:.0f} tokens/s", file=sys.stderr, flush=True)
        for number in range(1, options.rounds + 1):
            for one in bench.round(number):
                points.append(one)
                print(one, file=sys.stderr, flush=True)
    print(table(points))
    if options.out:
        facts = circumstances()
        facts |= {"engine": ENGINE, "target_s": TARGET_S, "times": TIMES}
        facts |= {"qualities": bench.qualities, "capacity_tokens_per_s": bench.capacity}
        facts |= {"ratios": {name: one.model_dump() for name, one in ratios(points).items()}}
        told = facts | {"points": [asdict(one) for one in points]}
        Path(options.out).write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
