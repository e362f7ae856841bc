"""In which fleets, and under which requests, are routers compared? Engines by data sheets, conversations of a trace."""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaling import StepCosts, Targets
from benchmarks.machine_facts import circumstances
from benchmarks.published_models import published
from cluster.device_facts import BY_NAME
from cluster.engine_memory import default_settings
from cluster.fit import fit
from cluster.quick_step import quick_step_seconds
from cluster.speed import unmeasured
from cluster.step_time import Layout
from cluster.step_work import Chunk
from simulation.setup import Setup
from simulation.trace import Trace

MODEL = "Qwen3-32B"
CONTEXT_TOKENS = 40_960
"""Its own; longer requests of a trace are left out."""
BATCH = 32
"""Sequences of the step that tells what each of them costs."""
WARM = 1 / 3
"""Of the time: what comes in it is served, but not counted, as caches fill."""


def fleet(gpu: str, replicas: int, slowness: tuple[float, ...] = ()) -> Setup:
    """So many engines for ever, each of one device by its data sheet."""
    model, device = published(MODEL), BY_NAME[gpu]
    settings = default_settings(device, context_tokens=CONTEXT_TOKENS)
    held = fit(model, device, layout=Layout(), settings=settings)
    return Setup(
        settings=settings,
        kv_blocks=int(held.largest_batch * CONTEXT_TOKENS) // settings.block_tokens,
        step=quick_step_seconds(model, device, unmeasured(model, device, "bf16"), layout=Layout()),
        min_replicas=replicas,
        max_replicas=replicas,
        begins_with=replicas,
        slowness=slowness,
    )


def step_costs(setup: Setup, trace: Trace) -> StepCosts:
    """What a prompt token and a sequence add to a step, with contexts as long as answers of the trace see them."""
    weights = trace.output_tokens / trace.output_tokens.sum()
    context = float((weights * (trace.prompt_tokens + trace.output_tokens / 2)).sum())
    one_s = setup.step([Chunk(new_tokens=1, context_tokens=context)])
    many_s = setup.step([Chunk(new_tokens=1, context_tokens=context, count=BATCH + 1)])
    tokens = setup.settings.batched_tokens
    return StepCosts(
        step_s=one_s,
        sequence_s=(many_s - one_s) / BATCH,
        prompt_token_s=setup.step([Chunk(new_tokens=tokens, context_tokens=0)]) / tokens,
    )


def busy_s(setup: Setup, costs: StepCosts, load: float) -> float:
    """Seconds of work in each second: all of it where steps take the target for a token in the mean is load 1."""
    return load * setup.begins_with * (1 - costs.step_s / Targets().token_s)


def ideal_tokens(trace: Trace) -> NDArray[np.int64]:
    """Of each prompt, what one endless cache of the whole fleet would have; the last token is read in any case."""
    found = np.zeros(trace.requests, dtype=np.int64)
    if not trace.prefixes:
        return found
    known: set[int] = set()
    for place, prefix in enumerate(trace.prefixes):
        count, whole = 0, prefix[: int(trace.prompt_tokens[place]) // trace.block_tokens]
        for block in whole:
            if block not in known:
                break
            count += 1
        known.update(whole)
        found[place] = min(count * trace.block_tokens, int(trace.prompt_tokens[place]) - 1)
    return found


def work_s(trace: Trace, costs: StepCosts) -> NDArray[np.float64]:
    """Of each request, seconds of an engine that finds what an endless cache would have."""
    read = trace.prompt_tokens - ideal_tokens(trace)
    return costs.prompt_token_s * read + costs.sequence_s * trace.output_tokens


def conversations(trace: Trace) -> list[NDArray[np.int64]]:
    """Places of the requests whose prompts begin with the same block; one whose prompt has none is alone."""
    found: dict[object, list[int]] = defaultdict(list)
    for place in range(trace.requests):
        prefix = trace.prefixes[place] if trace.prefixes else ()
        found[prefix[0] if prefix else ("alone", place)].append(place)
    return [np.array(places) for places in found.values()]


def loaded(trace: Trace, costs: StepCosts, *, busy_s: float, span_s: float, seed: int) -> Trace:
    """Conversations drawn by lot that begin evenly over `span_s`, each as fast as it was, so that what comes after
    WARM of it is `busy_s` seconds of work for each second. Two that are the same one share nothing but what different
    ones share.
    """
    source = np.random.default_rng(seed)
    talks, work = conversations(trace), work_s(trace, costs)
    longest_s = max(float(np.ptp(trace.at_s[talk])) for talk in talks)
    # Those that began before are cut off, as those that end later are.
    begin_s, wanted_s, done_s = min(longest_s, span_s), busy_s * (1 - WARM) * span_s, 0.0
    chosen, at_s, copies, count = list[int](), list[float](), list[int](), 0
    while done_s < wanted_s:
        talk = talks[int(source.integers(len(talks)))]
        times = trace.at_s[talk] - trace.at_s[talk[0]] + source.uniform(-begin_s, span_s)
        kept = (times >= 0) & (times <= span_s)
        chosen += talk[kept].tolist()
        at_s += times[kept].tolist()
        copies += [count] * int(kept.sum())
        count += 1
        done_s += float(work[talk[kept & (times >= WARM * span_s)]].sum())
    return trace.taken(np.array(chosen), np.array(at_s), np.array(copies))


def sweep(
    scenes: Iterable[Any],
    options: argparse.Namespace,
    *,
    played: Callable[[Any, int, int, argparse.Namespace], Iterable[Any]],
    table: Callable[[Sequence[Any], str, int], str],
    more: Callable[[Sequence[Any]], dict[str, Any]],
) -> None:
    """Plays each scene with each number of replicas and seed, prints it as a table, and writes what there is by then.

    `more(points)` is what the file says beside the points, and when, where and of what they are.
    """
    begun_s, points = time.perf_counter(), list[Any]()
    for scene in scenes:
        for replicas in options.replicas:
            for seed in range(options.seeds):
                points += played(scene, replicas, seed, options)
            print(table(points, scene.name, replicas), flush=True)
            if options.out:
                facts = circumstances()
                facts |= {"model": MODEL, "device": options.gpu, "span_s": options.span}
                facts |= {"seconds": time.perf_counter() - begun_s} | more(points)
                told = facts | {"points": [asdict(point) for point in points]}
                Path(options.out).write_text(json.dumps(told, indent=1) + "\n")
