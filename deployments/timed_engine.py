"""When does each token of a load come from an engine as the fleet would start it?"""

import asyncio
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import perf_counter

from deployments.engine_process import EngineProcess, engine_process
from deployments.fleet import Model
from deployments.frames import Delta, Failure, Submit
from deployments.vllm_engine import VllmEngine
from deployments.vllm_start import EngineFailed

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


class TimedEngine:
    """A running engine. Its methods block; one at a time."""

    def __init__(self, process: EngineProcess, source: random.Random) -> None:
        self._process, self._source = process, source
        self.facts = process.facts

    def token_times_s(self, requests: Sequence[Request]) -> list[list[float]]:
        """When each token of each request came, from the load's begin on. Prompts are random: nothing of them is
        cached. Raises EngineFailed.
        """
        prompts = [self._prompt(request.prompt_tokens) for request in requests]
        return self._process.ask(token_times_s, list(requests), prompts)

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
    with engine_process(model, sharers=sharers) as process:
        yield TimedEngine(process, random.Random(seed))


async def token_times_s(engine: VllmEngine, requests: list[Request], prompts: list[list[int]]) -> list[list[float]]:
    """When each token of each request came, in seconds from the first's sending on. Raises EngineFailed."""
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
