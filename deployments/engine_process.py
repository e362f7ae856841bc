"""How does work get done by an engine as a fleet would start it? In a process of its own, which ends with this one."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deployments import parent_watch
from deployments.fleet import Model
from deployments.vllm_engine import VllmEngine
from deployments.vllm_start import EngineFailed

ENDS_S = 20.0
"""For so long an engine may take to end before it is killed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineFacts:
    """What a running engine says of itself."""

    dtype: str
    max_model_len: int
    slots: int
    step_tokens: int
    kv_tokens: int
    vocabulary: int


class EngineProcess:
    """A running engine. Its methods block; one at a time."""

    def __init__(self, connection: Connection, facts: EngineFacts) -> None:
        self._connection, self.facts = connection, facts

    def ask(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """What `await work(engine, *arguments)` returns there; all of it must be picklable. Raises EngineFailed."""
        try:
            self._connection.send((work, arguments))
        except OSError:
            raise EngineFailed("the engine's process ended") from None
        return _received(self._connection, "the engine's process ended")


@contextmanager
def engine_process(model: Model, *, sharers: int = 1) -> Iterator[EngineProcess]:
    """One replica, whose cores `sharers` engines may use at the same time. Raises EngineFailed."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    with TemporaryDirectory(prefix="headrace-engine-") as folder:
        process = context.Process(target=_run, args=(there, model, sharers, Path(folder)), name="headrace-engine")
        process.start()
        there.close()
        # One that is still starting hears nothing, and its own processes don't watch it yet.
        patience_s = 0.0
        try:
            facts = _received(here, "the engine's process ended while it started")
            patience_s = ENDS_S
            yield EngineProcess(here, facts)
        finally:
            here.close()
            _end(process, patience_s)


def _received(connection: Connection, ended: str) -> Any:
    try:
        answer = connection.recv()
    except (EOFError, OSError):
        raise EngineFailed(ended) from None
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
            work, arguments = await asyncio.to_thread(connection.recv)
            try:
                connection.send(await work(engine, *arguments))
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
