"""What does the path between client and engine core cost, beside vLLM's own server on the same machine?

Both servers run the same checkpoint with the same engine arguments and are put under load in turns, so that
noise on the machine meets both. CPU time is read from /proc.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Annotated, NoReturn

import psutil
import typer

from benchmarks import cpu_time
from benchmarks.machine_facts import machine_facts, versions
from benchmarks.prompts import chat_prompts
from benchmarks.servers import ENGINE, HOST, MODEL, BenchmarkFailed, Server, headrace_fleet, vllm_server
from benchmarks.serving_report import Turn, summarise, table
from benchmarks.streaming_client import Job, Seen
from headrace.fetching import FetchError, resolve

PROMPT_TOKENS = 128
OUTPUT_TOKENS = 64
REQUESTS_PER_STREAM = 4
REQUESTS_AT_LEAST = 12
EVENTS_PER_TOKEN = 0.98
"""A server that joins tokens into fewer events does less work, and both do so when they get too little CPU:
below this share the pair of turns does not count."""
ATTEMPTS = 6
SETTLE_S = 2.0
"""Pause before a turn: an engine core spins for a second after its last step and so slows the other server."""
IDLE_S = 10.0
"""Time over which the idle cost of both servers is read."""


class Client:
    """The process that sends the load."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "benchmarks.streaming_client"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, job: Job) -> None:
        """Sends the job and returns once its last stream has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        self._line()

    def seen(self) -> Seen:
        """What the client saw of the last job."""
        return Seen(**json.loads(self._line()))

    def close(self) -> None:
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise BenchmarkFailed("the client ended: see above")
        return line


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """Both servers, the client and the checkpoint."""

    folder: Path
    servers: tuple[Server, Server]
    client: Client
    seeds: count
    discarded: list[Turn] = field(default_factory=list)

    def pair(self, number: int, streams: int) -> list[Turn]:
        """A turn of each server, both token by token. Raises BenchmarkFailed when they never are."""
        for _ in range(ATTEMPTS):
            turns = self.turns(number, streams)
            if all(turn.events_per_token >= EVENTS_PER_TOKEN for turn in turns):
                return turns
            self.discarded.extend(turns)
        raise BenchmarkFailed(
            f"{ATTEMPTS} times a server sent less than {EVENTS_PER_TOKEN} events per token at {streams} "
            "streams: is the machine busy with something else?"
        )

    def turns(self, number: int, streams: int) -> list[Turn]:
        """One turn of each server with prompts that neither has seen; who begins changes with the round."""
        requests = max(REQUESTS_AT_LEAST, REQUESTS_PER_STREAM * streams)
        prompts = chat_prompts(self.folder, count=requests, tokens=PROMPT_TOKENS, seed=next(self.seeds))
        order = self.servers if number % 2 else self.servers[::-1]
        return [self._turn(server, number, prompts, streams) for server in order]

    def _turn(self, server: Server, number: int, prompts: list[str], streams: int) -> Turn:
        job = Job(
            host=HOST,
            port=server.port,
            model=MODEL,
            prompts=prompts,
            streams=streams,
            prompt_tokens=PROMPT_TOKENS,
            output_tokens=OUTPUT_TOKENS,
        )
        time.sleep(SETTLE_S)
        started_s, busy_s, before = time.monotonic(), _busy_s(), self._read()
        self.client.start(job)
        spent_s = {name: reading.since(before[name]) for name, reading in self._read().items()}
        window_s, busy_s = time.monotonic() - started_s, _busy_s() - busy_s
        seen = self.client.seen()
        known_s = sum(sum(parts.values()) for parts in spent_s.values()) + seen.client_cpu_s
        own_s = spent_s.pop(server.name)
        return Turn(
            server=server.name,
            number=number,
            streams=streams,
            seen=seen,
            window_s=window_s,
            cpu_s={str(part): spent for part, spent in own_s.items()},
            idle_server_cores=sum(sum(parts.values()) for parts in spent_s.values()) / window_s,
            others_cores=max(0.0, busy_s - known_s) / window_s,
        )

    def _read(self) -> dict[str, cpu_time.Reading]:
        return {server.name: cpu_time.read(server.parts) for server in self.servers}


def idle_cores(server: Server) -> dict[str, float]:
    """Cores that each part of a server uses while nobody asks anything."""
    before, started_s = cpu_time.read(server.parts), time.monotonic()
    time.sleep(IDLE_S)
    spent_s = cpu_time.read(server.parts).since(before)
    return {str(part): spent / (time.monotonic() - started_s) for part, spent in spent_s.items()}


def measure(folder: Path, rounds: int, streams: list[int]) -> dict[str, object]:
    """Runs the comparison; everything that was seen, ready for JSON. Raises BenchmarkFailed."""
    with (
        tempfile.TemporaryDirectory(prefix="serving-path-") as logs,
        headrace_fleet(folder, Path(logs)) as headrace,
        vllm_server(folder, Path(logs)) as vllm,
    ):
        seeds = count(random.randrange(1 << 32))
        bench = Bench(folder=folder, servers=(vllm, headrace), client=Client(), seeds=seeds)
        for width in streams:
            bench.turns(0, width)  # warms both up, not counted
        idle = {server.name: idle_cores(server) for server in bench.servers}
        turns: list[Turn] = []
        for number in range(1, rounds + 1):
            for width in streams:
                turns += bench.pair(number, width)
            typer.echo(f"round {number} of {rounds} done", err=True)
        bench.client.close()
        bindings = {server.name: server.binding() for server in bench.servers}
    return {
        "command": " ".join(["python -m benchmarks.serving_path", *sys.argv[1:]]),
        "machine": machine_facts(),
        "versions": versions(),
        "engine_arguments": ENGINE,
        "omp_binding": bindings,
        "prompt_tokens": PROMPT_TOKENS,
        "output_tokens": OUTPUT_TOKENS,
        "idle_cores": idle,
        "summary": summarise(turns),
        "turns": [asdict(turn) for turn in turns],
        "discarded_turns": [asdict(turn) for turn in bench.discarded],
    }


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def compare(
    model: Annotated[str, typer.Option(help="A fetched name or a folder.")] = "tiny",
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each server for each number of streams.")] = 5,
    streams: Annotated[str, typer.Option(help="Concurrent streams, by commas.")] = "1,8,32",
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = Path("docs/evidence/serving_path.json"),
) -> None:
    """Compare the serving path with vLLM's own server: CPU per output token, TTFT, tokens per second.

    \b
    python -m benchmarks.serving_path
    python -m benchmarks.serving_path --rounds 1 --streams 32 --output /tmp/quick.json
    """
    try:
        result = measure(resolve(model), rounds, _widths(streams))
    except (FetchError, BenchmarkFailed) as error:
        typer.echo(f"serving_path: {error}", err=True)
        raise typer.Exit(1) from None
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")
    typer.echo(table(result))
    typer.echo(f"JSON: {output}")


def _widths(streams: str) -> list[int]:
    try:
        widths = [int(word) for word in streams.split(",")]
    except ValueError:
        widths = [0]
    if min(widths) < 1:
        raise typer.BadParameter(f"should be whole numbers from 1, by commas, got {streams!r}", param_hint="--streams")
    return widths


def _busy_s() -> float:
    """CPU seconds that all processes of the machine have used."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq


def main() -> NoReturn:
    """Runs the command; a user's mistake ends with one line and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except typer.TyperException as error:
        typer.echo(f"serving_path: {error.format_message()}", err=True)
        code = error.exit_code
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
