"""What does the engine that will serve a checkpoint say of texts, and how fast is it?"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from compress.scores import Scores
from deployments.engine_process import EngineProcess, engine_process
from deployments.fleet import Model
from deployments.timed_engine import Request, token_times_s
from deployments.vllm_engine import VllmEngine

LIKELIEST = 20
"""As many likeliest tokens as vLLM tells unless it is configured otherwise."""


class CheckpointEngine:
    """A running engine. Its methods block; one at a time. They raise EngineFailed."""

    def __init__(self, process: EngineProcess) -> None:
        self._process = process
        self.dtype = process.facts.dtype

    def scores(self, rows: Sequence[Sequence[int]], likeliest: int = LIKELIEST) -> Scores:
        """What the engine says of rows of equal length, from prefills."""
        answers = self._process.ask(_likeliest, [list(row) for row in rows], likeliest)
        nats, ids, logprobs = zip(*answers, strict=True)
        return Scores(
            nats=np.array(nats, dtype=np.float32),
            likeliest=np.array(ids, dtype=np.int32),
            logprobs=np.array(logprobs, dtype=np.float32),
        )

    def loglikelihood(self, pairs: list[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """For (context ids, continuation ids): ln p of the continuation, and whether greedy decoding gives it."""
        answers = self._process.ask(_likeliest, [context + continuation for context, continuation in pairs], 1)
        found = []
        for (_, continuation), (nats, likeliest, _) in zip(pairs, answers, strict=True):
            places = range(len(nats) - len(continuation), len(nats))
            greedy = all(likeliest[place][0] == token for place, token in zip(places, continuation, strict=True))
            found.append((-sum(nats[place] for place in places), greedy))
        return found

    def seconds(self, prompts: list[list[int]], output_tokens: int) -> tuple[list[float], float]:
        """Prompts sent at once: seconds until each one's first token, and until the last token of all."""
        requests = [Request(prompt_tokens=len(prompt), output_tokens=output_tokens) for prompt in prompts]
        times_s = self._process.ask(token_times_s, requests, prompts)
        return [times[0] for times in times_s], max(times[-1] for times in times_s)


@contextmanager
def checkpoint_engine(
    folder: Path, *, max_model_len: int, max_num_seqs: int, likeliest: int = LIKELIEST
) -> Iterator[CheckpointEngine]:
    """A fresh engine on a checkpoint, as `headrace serve` would start it. Raises EngineFailed.

    `likeliest`: as many tokens it may be asked to tell for a place.
    """
    arguments = {
        "max_model_len": max_model_len,
        "max_num_seqs": max_num_seqs,
        "max_logprobs": max(likeliest, LIKELIEST),
        "enable_prefix_caching": False,
    }
    with engine_process(Model(name="checkpoint", source=str(folder), engine=arguments)) as process:
        yield CheckpointEngine(process)


async def _likeliest(
    engine: VllmEngine, rows: list[list[int]], count: int
) -> list[tuple[list[float], list[Any], list[Any]]]:
    return await asyncio.gather(*(_likeliest_of(engine, row, count) for row in rows))


async def _likeliest_of(engine: VllmEngine, row: list[int], count: int) -> tuple[list[float], list[Any], list[Any]]:
    """For each token but the first: -ln p, the ids of the `count` likeliest tokens, and their ln p."""
    nats, ids, logprobs = [], [], []
    for token, place in zip(row[1:], await engine.likeliest(row, count), strict=True):
        ranked = sorted(place.items(), key=lambda item: -item[1])[:count]
        nats.append(-place[token])
        ids.append([token for token, _ in ranked])
        logprobs.append([logprob for _, logprob in ranked])
    return nats, ids, logprobs
