"""How is a checkpoint asked in the engine that will serve it? In a process of its own, which ends with this one."""

import asyncio
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from compress.scores import Scores
from deployments import parent_watch
from deployments.fleet import Model
from deployments.frames import Delta, Failure, Submit
from deployments.vllm_engine import EngineFailed, VllmEngine

LIKELIEST = 20
"""As many likeliest tokens as vLLM tells unless it is configured otherwise."""


class EngineProcess:
    """A running engine. Its methods block; one at a time."""

    def __init__(self, connection: Connection, dtype: str) -> None:
        self._connection = connection
        self.dtype = dtype

    def scores(self, rows: Sequence[Sequence[int]]) -> Scores:
        """What the engine says of rows of equal length, from prefills."""
        answers = self._ask(_likeliest, [list(row) for row in rows], LIKELIEST)
        nats, ids, logprobs = zip(*answers, strict=True)
        return Scores(
            nats=np.array(nats, dtype=np.float32),
            likeliest=np.array(ids, dtype=np.int32),
            logprobs=np.array(logprobs, dtype=np.float32),
        )

    def loglikelihood(self, pairs: list[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """For (context ids, continuation ids): ln p of the continuation, and whether greedy decoding gives it."""
        answers = self._ask(_likeliest, [context + continuation for context, continuation in pairs], 1)
        found = []
        for (_, continuation), (nats, likeliest, _) in zip(pairs, answers, strict=True):
            places = range(len(nats) - len(continuation), len(nats))
            greedy = all(likeliest[place][0] == token for place, token in zip(places, continuation, strict=True))
            found.append((-sum(nats[place] for place in places), greedy))
        return found

    def seconds(self, prompts: list[list[int]], output_tokens: int) -> tuple[list[float], float]:
        """Prompts sent at once: seconds until each one's first token, and until the last token of all."""
        return self._ask(_seconds, prompts, output_tokens)

    def _ask(self, work: Callable[..., Any], *arguments: Any) -> Any:
        try:
            self._connection.send((work, arguments))
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise EngineFailed("the engine's process ended") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


@contextmanager
def engine_process(folder: Path, *, max_model_len: int, max_num_seqs: int) -> Iterator[EngineProcess]:
    """A fresh engine on a checkpoint, as `headrace serve` would start it. Raises EngineFailed."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    arguments = {"max_model_len": max_model_len, "max_num_seqs": max_num_seqs, "enable_prefix_caching": False}
    model = Model(name="checkpoint", source=str(folder), engine=arguments)
    process = context.Process(target=_run, args=(there, model), name="headrace-engine")
    process.start()
    there.close()
    try:
        try:
            ready = here.recv()
        except EOFError:
            raise EngineFailed("the engine's process ended while it started") from None
        if isinstance(ready, Exception):
            raise ready
        yield EngineProcess(here, ready)
    finally:
        here.close()
        process.join(20)
        if process.is_alive():
            process.kill()
            process.join()


def _run(connection: Connection, model: Model) -> None:
    """The engine's process: answers until the other end closes."""
    parent_watch.watch_parent()
    # What the engine prints is for the error line alone; `Said` reads it from files.
    with TemporaryDirectory(prefix="headrace-engine-") as folder:
        log = os.open(Path(folder) / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        for descriptor in (1, 2):
            os.dup2(log, descriptor)
        asyncio.run(_answer(connection, model, Path(folder)))


async def _answer(connection: Connection, model: Model, folder: Path) -> None:
    try:
        engine = VllmEngine.start(model, claims=folder / "cores")
    except EngineFailed as error:
        connection.send(error)
        return
    connection.send(engine.dtype)
    try:
        while True:
            work, arguments = await asyncio.to_thread(connection.recv)
            try:
                connection.send(await work(engine, *arguments))
            except EngineFailed as error:
                connection.send(error)
    except EOFError:
        pass
    finally:
        engine.shutdown()


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


async def _seconds(engine: VllmEngine, prompts: list[list[int]], output_tokens: int) -> tuple[list[float], float]:
    sampling = {"max_tokens": output_tokens, "temperature": 0.0, "ignore_eos": True}
    first_s: dict[int, float] = {}
    ended: asyncio.Queue[Failure | None] = asyncio.Queue()
    start_s = perf_counter()

    def hear(said: Delta | Failure) -> None:
        if isinstance(said, Failure):
            ended.put_nowait(said)
            return
        first_s.setdefault(said.request, perf_counter() - start_s)
        if said.finish is not None:
            ended.put_nowait(None)

    for number, prompt in enumerate(prompts):
        await engine.submit(f"timing-{number}-{start_s}", Submit(number, 0, prompt, sampling, True, None), hear)
    for _ in prompts:
        if failure := await ended.get():
            raise EngineFailed(failure.message)
    return list(first_s.values()), perf_counter() - start_s
