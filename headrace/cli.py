"""What can be typed after `headrace`? Each command loads what it needs when it runs: --help is quick."""

import sys
from typing import Annotated, NoReturn

import typer

from headrace.failure import Failure
from headrace.schema import What

app = typer.Typer(
    help="Serve large language models on a Ray cluster.\n\n"
    "  headrace serve smollm2 --ask 'Who wrote Hamlet?'\n\n"
    "  headrace init && headrace serve fleet.yaml --detach",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Key = Annotated[
    str | None,
    typer.Option(
        envvar="HEADRACE_API_KEY", help="Key of a tenant, where there are tenants. Others can see command lines."
    ),
]
k8s = typer.Typer(
    help="Run a fleet on Kubernetes with KubeRay.\n\n  headrace k8s render fleet.yaml --overlay gpu",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(k8s, name="k8s")

Name = Annotated[str, typer.Option(help="Name of the run, for several runs on one machine.")]
Address = Annotated[
    str | None, typer.Option(metavar="URL", help="Dashboard of a Ray cluster, such as http://head:8265.")
]
TokenFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="Ray's token. Default: as Ray finds it (~/.ray/auth_token).")
]
FleetOrModel = Annotated[
    str | None,
    typer.Argument(
        metavar="FLEET.YAML|MODEL",
        help="A fleet file, or a model: smollm2, tiny, minilm, a folder, owner/name. Default: ./fleet.yaml.",
    ),
]


def main() -> NoReturn:
    """Runs one command; a user's mistake ends with one line and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except Failure as failure:
        _complain(str(failure))
        code = failure.exit_code
    except typer.TyperException as error:
        _complain(error.format_message())
        code = error.exit_code
    sys.exit(code or 0)


def _complain(text: str) -> None:
    for line in text.splitlines():
        print(f"headrace: {line}", file=sys.stderr)


@app.command(context_settings={"allow_extra_args": True})
def serve(
    context: typer.Context,
    what: FleetOrModel = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the endpoint (8000).")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (127.0.0.1).")] = None,
    ask: Annotated[str | None, typer.Option(metavar="QUESTION", help="Ask this when ready.")] = None,
    once: Annotated[bool, typer.Option("--once", help="With --ask: stop clean after the answer.")] = False,
    advise: Annotated[
        bool, typer.Option("--advise", help="Leave scaling to Ray Serve, only tell what we would do.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Go on in the background once ready.")] = False,
    key: Key = None,
    name: Name = "default",
) -> None:
    """Start a fleet on this machine and serve it until Ctrl-C.

    \b
    headrace serve fleet.yaml
    headrace serve smollm2 --ask "Who wrote Hamlet?" --once
    headrace serve fleet.yaml --advise
    headrace serve tiny --port 8001 --name second -- --max-model-len 1024
    """
    from headrace.serve import serve

    serve(
        what,
        context.args,
        port=port,
        host=host,
        question=ask,
        once=once,
        advise=advise,
        detach=detach,
        key=key,
        name=name,
    )


@app.command()
def deploy(
    file: Annotated[str | None, typer.Argument(metavar="FLEET.YAML", help="Default: ./fleet.yaml.")] = None,
    address: Address = None,
    name: Name = "default",
    token_file: TokenFile = None,
    diff: Annotated[bool, typer.Option("--diff", help="Only show what differs from what runs.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, change nothing.")] = False,
    timeout: Annotated[float, typer.Option(metavar="S", min=1, help="Patience with the update.")] = 1800,
    nodes_may_come: Annotated[
        bool, typer.Option("--nodes-may-come", help="Don't check for room: the cluster brings nodes itself.")
    ] = False,
) -> None:
    """Make a running fleet, or a Ray cluster, serve what a file says. A failed update is taken back.

    \b
    headrace deploy fleet.yaml --diff
    headrace deploy fleet.yaml
    headrace deploy fleet.yaml --address http://head:8265 --dry-run
    """
    from headrace.deploy import Wish, command

    command(
        Wish(
            file=file,
            name=name,
            address=address,
            token_file=token_file,
            only_diff=diff,
            dry=dry_run,
            patience_s=timeout,
            nodes_may_come=nodes_may_come,
        )
    )


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def submit(
    context: typer.Context,
    address: Address = None,
    name: Name = "default",
    token_file: TokenFile = None,
    cpus: Annotated[float, typer.Option(min=0, help="Logical CPUs that the job takes from the cluster.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs that it takes, all on one node.")] = 0,
    memory: Annotated[float, typer.Option(metavar="GB", min=0, help="Memory that it takes; 0: not counted.")] = 0,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once.")] = False,
    stop_on_interrupt: Annotated[
        bool, typer.Option("--stop-on-interrupt", help="Ctrl-C ends the job too, instead of leaving it to go on.")
    ] = False,
) -> None:
    """Run compress, calibrate or simulate as a job on a Ray cluster, and show here what it prints.

    Files that are named go along. What the command writes lies on the node where it ran.

    \b
    headrace submit compress recipe.yaml --out /shared/artefacts --address http://head:8265 --gpus 1
    headrace submit simulate --trace trace.csv --gpu h100 --policy all --address http://head:8265
    headrace submit calibrate fleet.yaml --gpus 1 --detach
    """
    from headrace.submit import Wish, command

    command(
        Wish(
            words=context.args,
            name=name,
            address=address,
            token_file=token_file,
            cpus=cpus,
            gpus=gpus,
            memory_gb=memory,
            detach=detach,
            stop_on_interrupt=stop_on_interrupt,
        )
    )


@app.command()
def stop(name: Name = "default") -> None:
    """End a run, also one whose driver has died. Nothing of it is left.

    \b
    headrace stop
    headrace stop --name second
    """
    from headrace.stop import stop

    stop(name)


@app.command()
def status(
    name: Name = "default",
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Show models, replicas, load and queues of a run.

    \b
    headrace status
    headrace status --watch
    """
    from headrace.status import status

    status(name, watch=watch)


@app.command()
def scaling(
    model: Annotated[str | None, typer.Argument(help="One model of the run (all of them).")] = None,
    since: Annotated[str, typer.Option(metavar="TIME", help="How far back: 90s, 30m, 1h, 2d.")] = "1h",
    json: Annotated[bool, typer.Option("--json", help="Print JSON: every decision that was stored.")] = False,
    plot: Annotated[str | None, typer.Option(metavar="FILE.html", help="Write a page with plots.")] = None,
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="Store of a fleet that names its own (`store.url`).")
    ] = None,
    name: Name = "default",
) -> None:
    """Show how many replicas were wanted, and which numbers were behind it. Works after the run too.

    \b
    headrace scaling
    headrace scaling smollm2 --since 1d --plot scaling.html
    headrace scaling --json --name second
    """
    from headrace.scaling import Options, command

    command(Options(model=model, since=since, store=store, run=name), as_json=json, plot=plot)


@app.command()
def chat(
    model: Annotated[str | None, typer.Argument(help="Default: the run's first model.")] = None,
    url: Annotated[str | None, typer.Option(help="Endpoint, such as http://host:8000.")] = None,
    key: Key = None,
    name: Name = "default",
) -> None:
    """Talk to a model in the terminal. Ctrl-C cancels an answer, Ctrl-D leaves.

    \b
    headrace chat
    headrace chat smollm2 --url http://127.0.0.1:8000
    """
    from headrace.chat import chat

    chat(model, url=url, name=name, key=key or None)


@app.command()
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


@app.command()
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


@app.command()
def plan(
    model: Annotated[
        str, typer.Argument(help="smollm2, tiny, a folder (config.json alone is enough), an artefact, owner/name.")
    ],
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

    \b
    headrace plan smollm2
    headrace plan owner/name --gpu h100 --gpu l4 --rate 10 --in 1000 --out 250 --ttft 0.5
    headrace plan ./folder --gpu all --quantization w4a16 --trace trace.csv --html plan.html
    """
    from headrace.plan import Options, command

    options = Options(
        source=model,
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


@app.command()
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
    )
    command(options, as_json=json, html=html)


@app.command(context_settings={"allow_extra_args": True})
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


@app.command()
def init(
    path: Annotated[str, typer.Argument(help="File to write.")] = "fleet.yaml",
    force: Annotated[bool, typer.Option("--force", help="Overwrite.")] = False,
) -> None:
    """Write an example fleet file with comments.

    \b
    headrace init
    headrace init other.yaml --force
    """
    from headrace.init import init

    init(path, force=force)


@app.command()
def doctor() -> None:
    """Check what serving needs; exit code 1 when something is missing.

    \b
    headrace doctor
    """
    from headrace.doctor import doctor

    doctor()


@k8s.command()
def render(
    what: FleetOrModel = None,
    overlay: Annotated[str, typer.Option(metavar="PLACE", help="dev, gpu, nodes or production.")] = "dev",
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder of the manifests.")] = "k8s",
) -> None:
    """Write a fleet's manifests: a kustomize base, an overlay for the place, and a job that compresses.

    \b
    headrace k8s render fleet.yaml
    headrace k8s render fleet.yaml --overlay production --out manifests
    """
    from headrace.k8s import render

    render(what, overlay=overlay, out=out)


@app.command(hidden=True)
def schema(which: Annotated[What, typer.Argument(help="What the file describes.")] = "fleet") -> None:
    """Print the JSON schema of fleet.yaml, a recipe or a report.json, for editors.

    \b
    headrace schema > fleet.schema.json
    headrace schema recipe > recipe.schema.json
    """
    from headrace.schema import schema

    print(schema(which))
