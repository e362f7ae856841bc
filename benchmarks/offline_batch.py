"""How fast does `headrace batch run` answer rows, beside vLLM's own `LLM.generate` with the same engine?

`python -m benchmarks.offline_batch --output FILE`: in turns, each time with a fresh engine whose start is not counted.
Ours reads, renders, answers and writes files, in partitions; vLLM's gets a list of texts and gives a list of answers.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.machine_facts import circumstances
from benchmarks.prompts import WORDS
from cluster import cores
from deployments.replica_arguments import engine_arguments, has_avx512
from deployments.served_model import Model
from headrace.fetching import resolve
from headrace.offline.command import Wish, run
from headrace.offline.engines import Done, Work, by_engines
from headrace.offline.table import Partition

ENGINE = {"max_model_len": 1024, "max_num_seqs": 16}
PROMPT_WORDS, ANSWER_TOKENS = (10, 120), (16, 96)
"""Least and most, by row."""


def main() -> None:
    """Turns of both, and the ratio of their speeds."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--output", type=Path)
    options.add_argument("--model", default="smollm2")
    options.add_argument("--rows", type=int, default=128)
    options.add_argument("--partition-rows", type=int, default=32)
    options.add_argument("--turns", type=int, default=5)
    options.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    options.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.only is not None:
        print(json.dumps(WAYS[given.only](given.model, given.file, given.partition_rows)))
        return
    facts = circumstances()
    turns = []
    for number in range(given.turns):
        with TemporaryDirectory() as folder:
            file = Path(folder) / "in.jsonl"
            write(file, given.rows, seed=number)
            order = ("ours", "theirs") if number % 2 else ("theirs", "ours")
            turn: dict[str, Any] = {way: alone(way, given.model, file, given.partition_rows) for way in order}
        turn["ratio"] = turn["ours"]["tokens_per_s"] / turn["theirs"]["tokens_per_s"]
        turns.append(turn)
        print(f"turn {number}: {turn['ratio']:.3f}", flush=True)
    ratios = sorted(turn["ratio"] for turn in turns)
    facts |= {"model": given.model, "engine": ENGINE, "rows": given.rows, "partition_rows": given.partition_rows}
    facts |= {"ratio": {"median": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]}, "turns": turns}
    print(json.dumps(facts["ratio"]))
    if given.output is not None:
        given.output.write_text(json.dumps(facts, indent=1) + "\n")


def write(file: Path, rows: int, seed: int) -> None:
    """OpenAI's batch lines, each with a length of its own."""
    chance = random.Random(seed)
    with file.open("w") as lines:
        for number in range(rows):
            prompt = " ".join(chance.choice(WORDS) for _ in range(chance.randint(*PROMPT_WORDS)))
            sampling = {"max_tokens": chance.randint(*ANSWER_TOKENS), "temperature": 0, "ignore_eos": True}
            line = {"custom_id": str(number), "url": "/v1/completions", "body": {"prompt": prompt, **sampling}}
            lines.write(json.dumps(line) + "\n")


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line)["body"] for line in file.read_text().splitlines()]


def alone(way: str, model: str, file: Path, partition_rows: int) -> dict[str, float]:
    """One way in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.offline_batch", "--only", way, "--file", str(file), "--model", model]
    command += ["--partition-rows", str(partition_rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def ours(model: str, file: Path, partition_rows: int) -> dict[str, float]:
    """From the first partition's begin, when the engine runs, to the last one's end on disk."""
    began: list[Done] = []

    def watched(partitions: Sequence[Partition], work: Work) -> Iterator[Done]:
        for done in by_engines(partitions, work):
            began.append(done)
            yield done

    out = file.with_name("out")
    engine = [word for name, value in ENGINE.items() for word in (f"--{name}", str(value))]
    run(Wish(source=str(file), out=str(out), model=model, engine=engine, partition_rows=partition_rows), by=watched)
    seconds = max(part.stat().st_mtime for part in out.glob("part-*")) - min(done.began_s for done in began)
    tokens = sum(done.output_tokens for done in began)
    return {"seconds": seconds, "tokens": tokens, "tokens_per_s": tokens / seconds}


def theirs(model: str, file: Path, _partition_rows: int) -> dict[str, float]:
    """vLLM's own, with the arguments and the cores that our engine gets."""
    os.environ |= {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = cores.binding(sorted(os.sched_getaffinity(0)), 1)
    from vllm import LLM, SamplingParams
    from vllm.platforms import current_platform

    served = Model(name=model, source=str(resolve(model)), engine=ENGINE)
    arguments = engine_arguments(served, cpu=current_platform.is_cpu(), avx512=has_avx512())
    del arguments["enable_logging_iteration_details"]
    engine = LLM(**arguments)
    bodies = read(file)
    parameters = [SamplingParams(**{name: body[name] for name in body if name != "prompt"}) for body in bodies]
    began_s = time.perf_counter()
    outputs = engine.generate([body["prompt"] for body in bodies], parameters, use_tqdm=False)
    seconds = time.perf_counter() - began_s
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    return {"seconds": seconds, "tokens": tokens, "tokens_per_s": tokens / seconds}


WAYS = {"ours": ours, "theirs": theirs}


if __name__ == "__main__":
    main()
