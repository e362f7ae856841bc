"""What can be typed of models before they serve: made smaller, planned, simulated, measured?"""

from typing import Annotated

import typer

from headrace.cli_arguments import FleetOrModel

commands = typer.Typer()


@commands.command()
def fetch(
    source: Annotated[str, typer.Argument(help="smollm2, tiny, minilm, a hub id (owner/name), or a folder.")],
) -> None:
    """Bring a model to this machine, whole and checked.

    \b
    headrace fetch smollm2
    headrace fetch HuggingFaceTB/SmolLM2-360M-Instruct
    """
    from headrace.fetch import fetch

    fetch(source)


@commands.command()
def compress(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE.YAML...|MODEL|list|show|diff",
            help="Recipe files, or one model with --to; or: list, show NAME, diff NAME NAME.",
        ),
    ],
    to: Annotated[
        str | None, typer.Option(metavar="GOAL", help="w8a8, w4a16, fp8 or smaller (fewer layers and neurons).")
    ] = None,
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Folder of the artefacts.")] = None,
    preflight: Annotated[
        bool, typer.Option("--preflight", help="Only say what would come out and what it takes.")
    ] = False,
) -> None:
    """Make a model smaller, check it in vLLM, and report what it lost and gained.

    \b
    headrace compress smollm2 --to smaller
    headrace compress recipe.yaml other.yaml --out artefacts
    headrace compress list
    headrace compress show smollm2-smaller
    headrace compress diff smollm2-smaller smollm2-w8a8
    """
    from headrace.compress import command

    command(what, goal=to, out=out, only_look=preflight)


@commands.command()
def plan(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|FLEET.YAML",
            help="smollm2, tiny, a folder (config.json alone is enough), an artefact, owner/name; or a fleet file.",
        ),
    ],
    model: Annotated[str | None, typer.Option(metavar="NAME", help="One model of the fleet (each of them).")] = None,
    gpu: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="h100, l4, ... or auto (this machine's), cpu, all. Again for more."),
    ] = None,
    context: Annotated[
        int | None, typer.Option(help="Tokens of prompt and answer together (the model's longest).")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Requests per second.")] = None,
    prompt: Annotated[int | None, typer.Option("--in", help="Tokens of a prompt, in the mean.")] = None,
    output: Annotated[int | None, typer.Option("--out", help="Tokens of an answer, in the mean.")] = None,
    trace: Annotated[
        str | None, typer.Option(metavar="FILE", help="Arrivals and lengths, CSV or JSONL, instead of the three.")
    ] = None,
    ttft: Annotated[
        float | None, typer.Option(metavar="S", help="95 of 100 first tokens within so many seconds.")
    ] = None,
    tpot: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds from one token to the next, in the mean.")
    ] = None,
    quantization: Annotated[
        list[str] | None,
        typer.Option(metavar="SCHEME", help="fp8, w8a8, w4a16 or w4a16_asym, by forecast. Again for more."),
    ] = None,
    variants: Annotated[
        str | None, typer.Option(metavar="DIR", help="Artefacts of `compress`, with the quality that they measured.")
    ] = None,
    devices_per_machine: Annotated[int | None, typer.Option(help="How many share a machine (8).")] = None,
    train: Annotated[str | None, typer.Option(metavar="HOW", help="distil or finetune: what training takes.")] = None,
    teacher: Annotated[str | None, typer.Option(metavar="MODEL", help="Whom it learns from (itself).")] = None,
    prices: Annotated[
        str | None, typer.Option(metavar="FILE", help="What an hour of a device costs (your own file).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write a page with plots.")] = None,
) -> None:
    """Say what a model needs, what limits it and what it will cost, without loading it.

    Of a fleet file: each model and its variants, with the quality that each has.

    \b
    headrace plan smollm2
    headrace plan owner/name --gpu h100 --gpu l4 --rate 10 --in 1000 --out 250 --ttft 0.5
    headrace plan ./folder --gpu all --quantization w4a16 --trace trace.csv --html plan.html
    headrace plan fleet.yaml --gpu l4 --rate 10
    """
    from headrace.plan import command
    from headrace.plan_asked import Options

    options = Options(
        source=what,
        model=model,
        gpu=tuple(gpu or ()),
        context=context,
        rate=rate,
        prompt=prompt,
        output=output,
        trace=trace,
        ttft=ttft,
        tpot=tpot,
        quantization=tuple(quantization or ()),
        variants=variants,
        devices_per_machine=devices_per_machine,
        train=train,
        teacher=teacher,
        prices=prices,
    )
    command(options, as_json=json, html=html)


@commands.command()
def simulate(
    trace: Annotated[str, typer.Option(metavar="FILE", help="Arrivals and lengths, CSV or JSONL, also as .gz.")],
    fleet: Annotated[
        str | None, typer.Option(metavar="FILE", help="Engines, bounds and targets. Default: ./fleet.yaml.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="One model of the fleet (its first).")] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=KNOB]",
            help="headrace, ray, keda, kpa, apa, llmd, dynamo, skyserve, oracle or all. Again for more.",
        ),
    ] = None,
    gpu: Annotated[str | None, typer.Option(metavar="NAME", help="h100, l4, ... or cpu (this machine's).")] = None,
    startup: Annotated[float, typer.Option(metavar="S", help="Seconds from a decision to a replica that serves.")] = 60,
    scale: Annotated[float, typer.Option(metavar="TIMES", help="So many times the requests of the trace.")] = 1,
    tile: Annotated[float, typer.Option(metavar="S", help="Repeat a trace that is shorter than this.")] = 0,
    seeds: Annotated[int, typer.Option(help="Runs of each policy, by other chance (copies, failures).")] = 1,
    failures: Annotated[float | None, typer.Option(metavar="H", help="A replica fails each so many hours.")] = None,
    prices: Annotated[str | None, typer.Option(metavar="FILE", help="What an hour of a device costs.")] = None,
    steps: Annotated[
        str | None, typer.Option(metavar="FILE", help="What steps of the engines cost, measured; JSON, by engine.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write a page with plots.")] = None,
) -> None:
    """Play a trace through a fleet on a virtual clock: what would users get, with how many replicas?

    \b
    headrace simulate --trace trace.csv --gpu h100
    headrace simulate --trace trace.jsonl --fleet fleet.yaml --policy headrace --policy ray=8 --startup 120
    headrace simulate --trace trace.csv.gz --gpu l4 --policy all --scale 20 --html simulation.html
    """
    from headrace.simulate import command
    from headrace.simulate_asked import Options

    options = Options(
        trace=trace,
        fleet=fleet,
        model=model,
        policies=tuple(policy or ()),
        gpu=gpu,
        startup=startup,
        scale=scale,
        tile=tile,
        seeds=seeds,
        failures=failures,
        prices=prices,
        steps=steps,
    )
    command(options, as_json=json, html=html)


@commands.command(context_settings={"allow_extra_args": True})
def calibrate(
    context: typer.Context,
    what: FleetOrModel = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="One model of the fleet (each of them).")] = None,
    output: Annotated[str | None, typer.Option(metavar="FILE", help="Keep what was measured there instead.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Also foresee traffic that is not fitted, and say how far off.")
    ] = False,
) -> None:
    """Time the real engine of a fleet; `plan` then predicts from what it reached.

    \b
    headrace calibrate fleet.yaml
    headrace calibrate fleet.yaml --model smollm2 --check
    headrace calibrate smollm2 --output smollm2.json -- --max-model-len 4096
    """
    from headrace.calibrate import calibrate

    calibrate(what, context.args, model=model, output=output, check=check)
