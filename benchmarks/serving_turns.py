"""What happens in one round of a serving comparison? Every system under the same load, in an order drawn by lot."""

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import psutil

from benchmarks import cpu_time
from benchmarks.load_generator import Load, Seen, understand
from benchmarks.servers import HOST, MODEL, BenchmarkFailed, Server

PROMPT_TOKENS, OUTPUT_TOKENS = 128, 64
EVENTS_PER_TOKEN = 0.98
"""A server that joins tokens into fewer events does less work, and all do so when they get too little CPU: below this
share a turn does not count."""
ATTEMPTS = 3
SETTLE_S = 2.0
"""Pause before a turn: an engine core spins for a second after its last step and so slows the other servers."""
IDLE_S = 10.0
"""Time over which the idle cost of all is read."""
IDLE_CORES_AT_MOST = 0.8
"""A system that uses more than this without a request spins, and would slow the others."""
LOOKS = 20
SEED = 20260
"""Of prompts and of the order of systems: the same in each run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Requests:
    """How many requests a turn has."""

    at_least: int
    per_stream: int

    def count(self, streams: int) -> int:
        return max(self.at_least, self.per_stream * streams)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What is asked of every system alike."""

    model: str
    api: str
    streams: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One system under load once."""

    cell: Cell
    round: int
    system: str
    seen: Seen | None
    """None where nothing that can be used was seen."""
    problem: str
    """Why the turn does not count; empty when it does."""
    window_s: float
    """Seconds over which CPU time was read."""
    cpu_s: dict[str, float]
    """By part."""
    idle_systems_cores: float
    """Cores that the systems without load used meanwhile."""
    generator_cores: float
    others_cores: float
    """Cores that processes outside the comparison used meanwhile: the load that the machine was under."""
    load_average: float


class Asks(Protocol):
    """Who puts a load on a server (load_generator.Generator)."""

    def run(self, load: Load, result: Path) -> dict[str, Any]: ...

    def cpu_s(self) -> float: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """Systems that answer, and who asks them."""

    model: str
    tokenizer: Path
    servers: tuple[Server, ...]
    generator: Asks
    texts: Callable[..., list[str]]
    """Prompts of PROMPT_TOKENS, by `chat`, `count` and `seed`."""
    requests: Requests
    scratch: Path
    settle_s: float = SETTLE_S

    def warm(self, streams: int) -> None:
        """Every system's first requests; not counted."""
        for api in ("chat", "completions"):
            for _ in self.round(0, Cell(model=self.model, api=api, streams=streams)):
                pass

    def round(self, number: int, cell: Cell) -> Iterator[Turn]:
        """One turn of each system, all with the same prompts, which none has seen.

        A turn that does not count is tried again, with other prompts: the first are in the system's cache.
        """
        draw = random.Random(f"{SEED} {number} {cell}")
        order = draw.sample(self.servers, len(self.servers))
        seeds = [draw.randrange(1 << 32) for _ in range(ATTEMPTS if number else 1)]
        files = {seed: self._prompts(cell, seed) for seed in seeds[:1]}
        for server in order:
            for seed in seeds:
                turn = self._turn(server, number, cell, files.get(seed) or self._prompts(cell, seed))
                yield turn
                if not turn.problem:
                    break

    def idle_cores(self) -> dict[str, dict[str, float]]:
        """Cores that each part of each system uses while nobody asks. Raises BenchmarkFailed when one spins."""
        before, started_s = self._read(), time.monotonic()
        time.sleep(IDLE_S)
        after, window_s = self._read(), time.monotonic() - started_s
        used = {
            name: {str(part): spent / window_s for part, spent in reading.since(before[name]).items()}
            for name, reading in after.items()
        }
        for name, parts in used.items():
            if sum(parts.values()) > IDLE_CORES_AT_MOST:
                raise BenchmarkFailed(f"{name} uses {sum(parts.values()):.2f} cores without a request: {parts}")
        return used

    def look_cpu_ms(self) -> dict[str, float]:
        """What a look for metrics costs a system between client and engine core. The generator takes four a turn, at a
        path where there are none."""
        cost = {}
        for server in self.servers:
            before = cpu_time.read(server.parts)
            for _ in range(LOOKS):
                httpx.get(f"{address(server)}/metrics", timeout=30.0, trust_env=False)
            spent_s = cpu_time.read(server.parts).since(before)
            cost[server.name] = sum(spent_s.get(part, 0.0) for part in cpu_time.PATH) / LOOKS * 1e3
        return cost

    def _prompts(self, cell: Cell, seed: int) -> Path:
        texts = self.texts(chat=cell.api == "chat", count=self.requests.count(cell.streams), seed=seed)
        path = self.scratch / f"prompts-{seed}.jsonl"
        path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
        return path

    def _turn(self, server: Server, number: int, cell: Cell, path: Path) -> Turn:
        load = self._load(server, cell, path)
        time.sleep(self.settle_s)
        started_s, busy_s, asked_s, before = time.monotonic(), _busy_s(), self.generator.cpu_s(), self._read()
        seen, problem = self._seen(load)
        spent_s = {name: reading.since(before[name]) for name, reading in self._read().items()}
        window_s, busy_s = time.monotonic() - started_s, _busy_s() - busy_s
        asked_s = self.generator.cpu_s() - asked_s
        known_s = sum(sum(parts.values()) for parts in spent_s.values()) + asked_s
        own_s = spent_s.pop(server.name)
        return Turn(
            cell=cell,
            round=number,
            system=server.name,
            seen=seen,
            problem=problem,
            window_s=window_s,
            cpu_s={str(part): spent for part, spent in own_s.items()},
            idle_systems_cores=sum(sum(parts.values()) for parts in spent_s.values()) / window_s,
            generator_cores=asked_s / window_s,
            others_cores=max(0.0, busy_s - known_s) / window_s,
            load_average=os.getloadavg()[0],
        )

    def _load(self, server: Server, cell: Cell, path: Path) -> Load:
        return Load(
            url=address(server),
            api=cell.api,
            model=MODEL,
            tokenizer=self.tokenizer,
            prompts=path,
            requests=self.requests.count(cell.streams),
            streams=cell.streams,
            prompt_tokens=PROMPT_TOKENS,
            output_tokens=OUTPUT_TOKENS,
            seed=SEED,
        )

    def _seen(self, load: Load) -> tuple[Seen | None, str]:
        try:
            seen = understand(self.generator.run(load, self.scratch / "result.json"), load)
        except ValueError as error:
            return None, str(error)
        few = seen.events_per_token < EVENTS_PER_TOKEN
        return seen, f"{seen.events_per_token:.3f} events per token" if few else ""

    def _read(self) -> dict[str, cpu_time.Reading]:
        return {server.name: cpu_time.read(server.parts) for server in self.servers}


def address(server: Server) -> str:
    """Where its API is."""
    return f"http://{HOST}:{server.port}/v1"


def _busy_s() -> float:
    """CPU seconds that all processes of the machine have used."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq
