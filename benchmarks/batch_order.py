"""What does a batch gain by asking lines that begin alike after each other, beside their order in the file?

    python -m benchmarks.batch_order --rounds 3 --output docs/evidence/batch_order.json

A real engine of the sample model on CPU, whose cache holds a few of the texts that lines begin with. In turns: the file
as a batch, and its requests by clients in the order of the file, as many at once as the batch has.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from benchmarks.live_fleet import fleet
from benchmarks.machine_facts import circumstances
from benchmarks.prompts import WORDS
from benchmarks.put_batch import begun, client_of, looked_at, uploaded

NAME = "batch-order"
SLOTS = 4
AT_ONCE = SLOTS + 16
"""Lines that a batch has in flight."""
BEGINNINGS, LINES_EACH = 16, 8
BEGINNING_WORDS, QUESTION_WORDS, ANSWER_TOKENS = 250, 10, 8
ENGINE = {"dtype": "float32", "max_model_len": 1024, "max_num_seqs": SLOTS, "max_num_batched_tokens": 1024}
CACHE_BYTES = 96 << 20
"""2,000 tokens: less than half of what all lines begin with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """One way, once."""

    seconds: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int

    @property
    def tokens_per_s(self) -> float:
        return (self.prompt_tokens + self.output_tokens) / self.seconds


def lines(seed: int) -> list[dict[str, Any]]:
    """In an order by lot."""
    draw = random.Random(seed)
    found = list[dict[str, Any]]()
    for _ in range(BEGINNINGS):
        beginning = " ".join(draw.choices(WORDS, k=BEGINNING_WORDS))
        for _ in range(LINES_EACH):
            prompt = f"{beginning}\n{' '.join(draw.choices(WORDS, k=QUESTION_WORDS))}"
            found.append(
                {"model": "smollm2", "prompt": prompt, "max_tokens": ANSWER_TOKENS, "ignore_eos": True}
                | {"temperature": 0}
            )
    draw.shuffle(found)
    return found


def as_batch(url: str, bodies: Sequence[dict[str, Any]]) -> Pass:
    """From its creation to its end."""
    client = client_of(url)
    file = uploaded(client, bodies)
    began_s = time.monotonic()
    name = begun(client, file)
    while (batch := looked_at(client, name)).status != "completed":
        time.sleep(0.1)
    seconds = time.monotonic() - began_s
    output = client.files.content(batch.output_file_id or "").text
    return _pass(seconds, [json.loads(line)["response"]["body"] for line in output.splitlines()], len(bodies))


def in_file_order(url: str, bodies: Sequence[dict[str, Any]]) -> Pass:
    """By clients of the batch's own tier, each of which takes the next line when it has its answer."""
    began_s = time.monotonic()
    answers = asyncio.run(_all(url, bodies))
    return _pass(time.monotonic() - began_s, answers, len(bodies))


async def _all(url: str, bodies: Sequence[dict[str, Any]]) -> list[Any]:
    left, answers = iter(bodies), list[Any]()

    async def client(http: httpx.AsyncClient) -> None:
        for body in left:
            told = await http.post("/v1/completions", json=body | {"service_tier": "flex"})
            answers.append(told.raise_for_status().json())

    async with (
        httpx.AsyncClient(base_url=url, timeout=600.0, trust_env=False) as http,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(AT_ONCE):
            group.create_task(client(http))
    return answers


def _pass(seconds: float, answers: Sequence[Any], wanted: int) -> Pass:
    if len(answers) != wanted:
        raise RuntimeError(f"{len(answers)} of {wanted} lines were answered")
    usages = [answer["usage"] for answer in answers]
    return Pass(
        seconds=seconds,
        prompt_tokens=sum(usage["prompt_tokens"] for usage in usages),
        cached_tokens=sum((usage["prompt_tokens_details"] or {}).get("cached_tokens") or 0 for usage in usages),
        output_tokens=sum(usage["completion_tokens"] for usage in usages),
    )


def compared(rounds: int) -> Iterator[dict[str, Pass]]:
    """Both ways in turns, each with a file of its own: nothing of the other is in the cache."""
    engine = ENGINE | {"kv_cache_memory_bytes": CACHE_BYTES}
    model = {"name": "smollm2", "source": "smollm2", "engine": engine, "replicas": {"min": 1, "max": 1}}
    with TemporaryDirectory() as folder:
        fields = {"models": [model], "store": {"url": f"sqlite:///{folder}/store.sqlite"}}
        with fleet(NAME, fields) as url:
            as_batch(url, lines(seed=0)[:SLOTS])
            for number in range(1, rounds + 1):
                order = (as_batch, in_file_order) if number % 2 else (in_file_order, as_batch)
                yield {way.__name__: way(url, lines(2 * number + place)) for place, way in enumerate(order)}


def ratio(turn: dict[str, Pass]) -> float:
    return turn["as_batch"].tokens_per_s / turn["in_file_order"].tokens_per_s


def main(argv: Sequence[str] | None = None) -> None:
    """Plays all, prints what came, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(argv)
    turns = list[dict[str, Pass]]()
    for turn in compared(options.rounds):
        turns.append(turn)
        print(f"{turn} ratio {ratio(turn):.2f}", file=sys.stderr, flush=True)
    ratios = sorted(map(ratio, turns))
    spread = f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    print(f"tokens/s of the batch over those of the file's order: {spread}")
    if options.output:
        facts = circumstances()
        facts |= {"engine": ENGINE, "cache_bytes": CACHE_BYTES, "at_once": AT_ONCE}
        facts |= {"beginnings": BEGINNINGS, "lines_each": LINES_EACH, "ratios": ratios}
        told = [{way: asdict(one) for way, one in turn.items()} for turn in turns]
        options.output.write_text(json.dumps(facts | {"turns": told}, indent=1) + "\n")


if __name__ == "__main__":
    main()
