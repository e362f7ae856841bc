"""What does the cost model say of a measured run? Its requests through an engine in virtual time."""

from collections.abc import Callable
from collections.abc import Sequence as Chunks
from dataclasses import replace
from math import inf

import numpy as np

from benchmarks.perf_profiles import Run, Times
from cluster.engine_memory import engine_memory
from cluster.kv_cache import bytes_per_token
from cluster.loaded_weights import loaded_bytes
from cluster.model import Attention, Model, Part
from cluster.step_time import LINK_SHARE, REDUCE_LATENCY_S, Coefficients, step_time
from cluster.step_work import Chunk, Work, work
from simulation.decodes import Sequence
from simulation.engine import Engine
from simulation.replay import replay


def predict(
    run: Run, coefficients: Coefficients, *, link_share: float = LINK_SHARE, blocks: int | None = None
) -> Times:
    """The run in virtual time: its arrivals and lengths, its engine's settings, the device's data sheet.

    `blocks` of the cache, if they are not to be predicted too.
    """
    device = replace(run.device, link_bytes_per_s=run.device.link_bytes_per_s * link_share / LINK_SHARE)
    run = replace(run, device=device)
    if run.data_parallel > 1:
        return _times(in_step(run, coefficients))
    whole = as_one_layer(run.model)

    def step(chunks: Chunks[Chunk]) -> float:
        return _seconds(work(whole, chunks), run, coefficients)

    return _times(replay(run.arrivals, Engine(run.settings, kv_blocks=blocks or kv_blocks(run), step=step)))


def _seconds(done: Work, run: Run, coefficients: Coefficients) -> float:
    layers = run.model.layers
    return step_time(done, run.device, coefficients, dtype="bf16", layers=layers, layout=run.layout).seconds


def kv_blocks(run: Run) -> int:
    """What the plan says is left for the cache, in blocks of one replica."""
    weights = loaded_bytes(run.model, run.layout.tensor)
    weights -= run.model.parts["experts"].bytes * (run.data_parallel - 1) // run.data_parallel
    left = engine_memory(run.model, run.device, layout=run.layout, settings=run.settings, loaded_bytes=weights)
    token_bytes = bytes_per_token(run.model, tensor_parallel=run.layout.tensor)
    return left.kv_bytes // (token_bytes * run.settings.block_tokens)


def as_one_layer(model: Model) -> Model:
    """The same work told as one layer, as all are alike: quicker to count."""
    first = model.mixers[0]
    if not isinstance(first, Attention) or set(model.mixers) != {first}:
        raise ValueError(f"{model.architecture}: its layers must be alike")
    every = replace(first, heads=first.heads * model.layers, kv_heads=first.kv_heads * model.layers)
    return replace(model, mixers=(every,))


def in_step(run: Run, coefficients: Coefficients) -> list[Sequence]:
    """Replicas that share their experts: they take every step together, and it lasts as long as the slowest's.

    Requests go where 4 * waiting + running is least (vLLM's balancer of data-parallel ranks).
    """
    engines = [
        Engine(run.settings, kv_blocks=kv_blocks(run), step=lambda chunks: 0.0) for _ in range(run.data_parallel)
    ]
    joint = _joint_step(run, coefficients)
    sequences: list[Sequence] = []
    for arrival_s, prompt_tokens, output_tokens in (*run.arrivals, (inf, 1, 1)):
        while min(engine.planned_s for engine in engines) < arrival_s:
            busy = [engine for engine in engines if engine.planned_s < inf]
            begun_s = max(engine.now_s for engine in busy)
            for engine in busy:
                engine.now_s = begun_s
            seconds = joint([engine.begin() for engine in busy])
            for engine in busy:
                engine.end(seconds)
        if arrival_s < inf:
            sequences.append(Sequence(arrival_s=arrival_s, prompt_tokens=prompt_tokens, output_tokens=output_tokens))
            min(engines, key=lambda one: 4 * one.schedule.waiting + one.schedule.running).add(sequences[-1])
    return sequences


def _joint_step(run: Run, coefficients: Coefficients) -> Callable[[list[list[Chunk]]], float]:
    """Each replica does its own attention; of all replicas' tokens each computes its share of the experts. Every layer
    gathers the tokens and scatters the sums, padded to the longest replica's.
    """
    whole = as_one_layer(run.model)
    dense = replace(whole, experts=None, parts={**whole.parts, "experts": Part(bytes=0, weights=0)})
    ranks = run.data_parallel

    def seconds(steps: list[list[Chunk]]) -> float:
        everyone = [chunk for chunks in steps for chunk in chunks]
        routed, rest = work(whole, everyone), work(dense, everyone)
        each = [work(dense, chunks) for chunks in steps]
        slowest_s = max(
            _seconds(
                replace(
                    own,
                    linear_flops=own.linear_flops + (routed.linear_flops - rest.linear_flops) / ranks,
                    weight_bytes=own.weight_bytes + (routed.weight_bytes - rest.weight_bytes) / ranks,
                ),
                run,
                coefficients,
            )
            for own in each
        )
        sent_bytes = (ranks - 1) * max(own.reduced_bytes for own in each)
        exchange_s = REDUCE_LATENCY_S + sent_bytes / (LINK_SHARE * run.device.link_bytes_per_s)
        return slowest_s + 2 * run.model.layers * exchange_s

    return seconds


def _times(sequences: list[Sequence]) -> Times:
    return Times(
        arrival_s=np.array([each.arrival_s for each in sequences]),
        first_token_s=np.array([each.first_token_s for each in sequences]),
        last_token_s=np.array([each.last_token_s for each in sequences]),
        output_tokens=np.array([float(each.output_tokens) for each in sequences]),
    )
