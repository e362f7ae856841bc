"""When does each token of a load come, from an engine as the fleet would start it? In a process that ends with this."""

import asyncio
import multiprocessing
import os
import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from deployments import parent_watch
from deployments.fleet import Model
from deployments.frames import Delta, Failure, Submit
from deployments.vllm_engine import EngineFailed, VllmEngine

ENDS_S = 20.0
"""For so long an engine may take to end before it is killed."""
QUIET = 0.05
"""Share of the cores' time that other programs may take while a load is timed."""
TRIES = 4
"""Times that a load is sent until nothing disturbs it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request of a load."""

    prompt_tokens: int
    output_tokens: int
    after_s: float = 0.0
    """From the load's begin to its sending."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineFacts:
    """What a running engine says of itself."""

    dtype: str
    max_model_len: int
    slots: int
    step_tokens: int
    kv_tokens: int
    vocabulary: int


class TimedEngine:
    """A running engine. Its methods block; one at a time."""

    def __init__(self, connection: Connection, facts: EngineFacts, source: random.Random) -> None:
        self._connection, self._source = connection, source
        self.facts = facts

    def token_times_s(self, requests: Sequence[Request]) -> list[list[float]]:
        """When each token of each request came, from the load's begin on. Prompts are random: nothing of them is
        cached. Raises EngineFailed.
        """
        prompts = [self._prompt(request.prompt_tokens) for request in requests]
        try:
            self._connection.send((list(requests), prompts))
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise EngineFailed("the engine's process ended") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def undisturbed_times_s(self, requests: Sequence[Request]) -> list[list[float]]:
        """The same while other programs left the cores alone, or of TRIES the least disturbed. Raises EngineFailed."""
        found: list[tuple[float, list[list[float]]]] = []
        while len(found) < TRIES:
            before_s, begin_s = _others_s(), perf_counter()
            times_s = self.token_times_s(requests)
            share = (_others_s() - before_s) / ((perf_counter() - begin_s) * (os.cpu_count() or 1))
            found.append((share, times_s))
            if share <= QUIET:
                break
        return min(found, key=lambda one: one[0])[1]

    def _prompt(self, tokens: int) -> list[int]:
        return [self._source.randrange(self.facts.vocabulary) for _ in range(tokens)]


def _others_s() -> float:
    """Seconds of all cores that went to anything but this process and its children, since some moment."""
    import psutil

    machine, own = psutil.cpu_times(), 0.0
    here = psutil.Process()
    for process in (here, *here.children(recursive=True)):
        with suppress(psutil.Error):
            times = process.cpu_times()
            own += times.user + times.system
    return machine.user + machine.nice + machine.system + machine.irq + machine.softirq + machine.steal - own


@contextmanager
def timed_engine(model: Model, *, sharers: int = 1, seed: int = 0) -> Iterator[TimedEngine]:
    """One replica in a process of its own, which ends with this one. Raises EngineFailed."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    with TemporaryDirectory(prefix="headrace-engine-") as folder:
        process = context.Process(target=_run, args=(there, model, sharers, Path(folder)), name="headrace-engine")
        process.start()
        there.close()
        # One that is still starting hears nothing, and its own processes don't watch it yet.
        patience_s = 0.0
        try:
            facts = _ready(here)
            patience_s = ENDS_S
            yield TimedEngine(here, facts, random.Random(seed))
        finally:
            here.close()
            _end(process, patience_s)


def _ready(connection: Connection) -> EngineFacts:
    try:
        answer = connection.recv()
    except EOFError:
        raise EngineFailed("the engine's process ended while it started") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _end(process: BaseProcess, patience_s: float) -> None:
    process.join(patience_s)
    if process.pid is not None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _run(connection: Connection, model: Model, sharers: int, folder: Path) -> None:
    """The engine's process: answers until the other end closes."""
    # A group of its own, which can be ended as one; Ctrl-C is for its parent, which ends it in order.
    os.setpgrp()
    parent_watch.watch_parent()
    # What the engine prints is for the error line alone; it is read from files.
    log_file = os.open(folder / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log_file, descriptor)
    asyncio.run(_answer(connection, model, sharers, folder))


async def _answer(connection: Connection, model: Model, sharers: int, folder: Path) -> None:
    try:
        engine = VllmEngine.start(model, sharers=sharers, claims=folder / "cores")
    except EngineFailed as error:
        connection.send(error)
        return
    try:
        connection.send(_facts(engine))
        while True:
            requests, prompts = await asyncio.to_thread(connection.recv)
            try:
                connection.send(await _token_times_s(engine, requests, prompts))
            except EngineFailed as error:
                connection.send(error)
    except EOFError:
        pass
    finally:
        engine.shutdown()


def _facts(engine: VllmEngine) -> EngineFacts:
    return EngineFacts(
        dtype=engine.dtype,
        max_model_len=engine.max_model_len,
        slots=engine.slots,
        step_tokens=engine.step_tokens,
        kv_tokens=engine.kv_tokens,
        vocabulary=engine.vocabulary_size,
    )


async def _token_times_s(engine: VllmEngine, requests: list[Request], prompts: list[list[int]]) -> list[list[float]]:
    ended: asyncio.Queue[Failure | None] = asyncio.Queue()
    times: list[list[float]] = [[] for _ in requests]
    begin_s = perf_counter()

    def hear(said: Delta | Failure) -> None:
        if isinstance(said, Failure):
            ended.put_nowait(said)
            return
        times[said.request] += [perf_counter() - begin_s] * len(said.token_ids)
        if said.finish is not None:
            ended.put_nowait(None)

    for number in sorted(range(len(requests)), key=lambda number: requests[number].after_s):
        request = requests[number]
        if (early_s := request.after_s - (perf_counter() - begin_s)) > 0:
            await asyncio.sleep(early_s)
        sampling = {"max_tokens": request.output_tokens, "temperature": 0.0, "ignore_eos": True}
        await engine.submit(f"{begin_s}-{number}", Submit(number, 0, prompts[number], sampling, True, None), hear)
    for _ in requests:
        if failure := await ended.get():
            raise EngineFailed(failure.message)
    return times
