"""How are requests of a trace played to a real fleet, at their times?"""

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import typer
import yaml
from numpy.typing import NDArray

from benchmarks.servers import free_port
from deployments.fleet import Fleet
from headrace.folders import made, run_folder
from headrace.observe import samples
from simulation.outcome import Run
from simulation.trace import Trace

VOCABULARY = range(100, 900)
"""Of which prompts are drawn."""
REFUSED = (429, 503, 504)
"""Too much of one tenant, too much in all, too late."""
PATIENCE_S = 600.0


def engine(*, slots: int, context_tokens: int, step_tokens: int, cache_bytes: int) -> dict[str, Any]:
    """Arguments of an engine of the tiny model whose steps last `benchmarks.pace.STEP_S`."""
    return {
        "dtype": "float32",
        "max_model_len": context_tokens,
        "max_num_seqs": slots,
        "max_num_batched_tokens": step_tokens,
        "kv_cache_memory_bytes": cache_bytes,
        "scheduler_cls": "benchmarks.paced.PacedScheduler",
    }


def paced(replicas: Mapping[str, int], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A fleet file's fields: models by these names, each the tiny one with so many replicas."""
    return {
        "models": [
            {"name": model, "source": "tiny", "engine": dict(arguments), "replicas": {"min": count, "max": count}}
            for model, count in replicas.items()
        ]
    }


@contextmanager
def fleet(name: str, fields: Mapping[str, Any]) -> Iterator[str]:
    """URL of a fleet by these fields of its file, all of whose engines are up, and which is gone afterwards."""
    port, root = free_port(), str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment, command = os.environ | {"PYTHONPATH": path}, [sys.executable, "-m", "headrace"]
    try:
        with made(run_folder(f"{name}-{secrets.token_hex(4)}")) as place:
            file = place / "fleet.yaml"
            file.write_text(yaml.safe_dump({**fields, "router": {"port": port}}))
            started = [*command, "serve", str(file), "--detach", "--name", name]
            subprocess.run(started, stdout=sys.stderr, env=environment, check=True)
        url = f"http://127.0.0.1:{port}"
        _await_all(url, sum(engine.replicas.min for engine in Fleet.model_validate(fields).engines))
        yield url
    finally:
        subprocess.run([*command, "stop", "--name", name], stdout=sys.stderr, check=False)


def kv_tokens(url: str) -> int:
    """Of the smallest cache of the fleet's idle engines."""
    return int(min(_gauges(url, "headrace_replica_kv_free_tokens")))


def _await_all(url: str, replicas: int) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while len(_gauges(url, "headrace_replica_kv_free_tokens")) < replicas:
        if time.monotonic() > end_s:
            raise typer.TyperException(f"not all of {replicas} replicas came within {PATIENCE_S:.0f} s")
        time.sleep(0.5)


def _gauges(url: str, name: str) -> list[float]:
    text = httpx.get(f"{url}/metrics", trust_env=False).raise_for_status().text
    return [sample.value for sample in samples(text) if sample.name == name]


@dataclass(slots=True)
class Told:
    """What became of a request. Times since the first was sent; infinite where it was refused."""

    first_s: float = inf
    last_s: float = inf
    cached_tokens: int = 0
    """Of its prompt."""
    variant: str = ""
    """That answered, where its model has several."""


def prompts(trace: Trace, seed: int) -> list[list[int]]:
    """Token ids of each request: those of a block of the trace are the same wherever it comes, all others by lot."""
    source, blocks, found = np.random.default_rng(seed), dict[int, list[int]](), list[list[int]]()
    for place, length in enumerate(trace.prompt_tokens.tolist()):
        ids = list[int]()
        for block in trace.prefixes[place] if trace.prefixes else ():
            if block not in blocks:
                blocks[block] = source.choice(VOCABULARY, size=trace.block_tokens).tolist()
            ids += blocks[block]
        found.append([*ids[:length], *source.choice(VOCABULARY, size=max(0, length - len(ids))).tolist()])
    return found


def lengths(source: np.random.Generator, mean: float, count: int) -> NDArray[np.int32]:
    """Of prompts or answers, in tokens: log-normal, at least 2, and what small engines take."""
    return np.clip(source.lognormal(np.log(mean) - 0.125, 0.5, count), 2, 240).astype(np.int32)


def nobody(place: int, ended: bool) -> None:
    """Hears nothing."""


async def played(
    url: str,
    trace: Trace,
    *,
    seed: int,
    model_of: Callable[[int], str],
    heard: Callable[[int, bool], None] = nobody,
    asked: Callable[[int], tuple[dict[str, str], dict[str, Any]]] = lambda place: ({}, {}),
) -> list[Told]:
    """Sends each request when it is due, to the model that `model_of(place)` names then.

    `heard(place, ended)` is told of first tokens and of ends, `asked(place)` gives more headers and fields. Raises
    httpx.HTTPError, or AssertionError where an answer is not what was asked.
    """
    told, ids, began_s = [Told() for _ in range(trace.requests)], prompts(trace, seed), time.monotonic()

    async def one(http: httpx.AsyncClient, place: int) -> None:
        tokens = int(trace.output_tokens[place])
        await asyncio.sleep(max(0.0, began_s + float(trace.at_s[place]) - time.monotonic()))
        headers, fields = asked(place)
        body = {"model": model_of(place), "prompt": ids[place], "max_tokens": tokens, "ignore_eos": True} | fields
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        last, here = "", told[place]
        async with http.stream("POST", "/v1/completions", json=body, headers=headers) as answer:
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                if not last:
                    here.first_s = time.monotonic() - began_s
                    heard(place, False)
                last = line.removeprefix("data: ")
            here.last_s = time.monotonic() - began_s
        heard(place, True)
        if answer.status_code in REFUSED:
            here.first_s = here.last_s = inf
            return
        assert answer.status_code == 200, answer.status_code
        here.variant = answer.headers.get("x-headrace-variant", "")
        usage = json.loads(last)["usage"]
        assert usage["completion_tokens"] == tokens, last
        here.cached_tokens = usage["prompt_tokens_details"]["cached_tokens"]

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with (
        httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False, limits=limits) as http,
        asyncio.TaskGroup() as group,
    ):
        for place in range(trace.requests):
            group.create_task(one(http, place))
    return told


def as_run(trace: Trace, told: Sequence[Told]) -> Run:
    """The same, in the form in which the simulator tells what happened to requests; it says nothing of replicas."""
    last_s, none = np.array([one.last_s for one in told]), np.zeros(0, dtype=np.int32)
    return Run(
        trace=trace,
        first_s=np.array([one.first_s for one in told]),
        last_s=last_s,
        found_tokens=np.array([one.cached_tokens for one in told], dtype=np.int32),
        end_s=float(last_s[np.isfinite(last_s)].max()),
        device_s=0.0,
        running=none,
        present=none,
        queued=none,
        changes=[],
        refused=int((~np.isfinite(last_s)).sum()),
        failures=0,
    )
