"""What can be typed of a fleet that runs, or is to run?"""

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from headrace.cli_arguments import Address, AsJson, FleetOrModel, Key, Name, StoreUrl, TokenFile

commands = typer.Typer()


class _Carries(TyperCommand):
    """Takes a command's words. A `--` after the first of them is that command's, with all that follows."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        words = super().parse_args(ctx, args[:end])
        ctx.args = [*words, *args[end if words else end + 1 :]]
        return ctx.args


@commands.command(context_settings={"allow_extra_args": True})
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


@commands.command()
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


@commands.command(cls=_Carries, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
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
    """Run compress, calibrate, simulate or batch as a job on a Ray cluster, and show here what it prints.

    Files that are named go along. What the command writes lies on the node where it ran. What stands after `--` is the
    command's.

    \b
    headrace submit compress recipe.yaml --out /shared/artefacts --address http://head:8265 --gpus 1
    headrace submit simulate --trace trace.csv --gpu h100 --policy all --address http://head:8265
    headrace submit calibrate fleet.yaml --gpus 1 --detach
    headrace submit batch run prompts.jsonl /shared/answers --model owner/name --gpus 1 --address http://head:8265
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


@commands.command()
def stop(name: Name = "default") -> None:
    """End a run, also one whose driver has died. Nothing of it is left.

    \b
    headrace stop
    headrace stop --name second
    """
    from headrace.stop import stop

    stop(name)


@commands.command()
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


@commands.command()
def scaling(
    model: Annotated[str | None, typer.Argument(help="One model of the run (all of them).")] = None,
    since: Annotated[str, typer.Option(metavar="TIME", help="How far back: 90s, 30m, 1h, 2d.")] = "1h",
    json: Annotated[bool, typer.Option("--json", help="Print JSON: every decision that was stored.")] = False,
    plot: Annotated[str | None, typer.Option(metavar="FILE.html", help="Write a page with plots.")] = None,
    store: StoreUrl = None,
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


@commands.command()
def usage(
    since: Annotated[str, typer.Option(metavar="TIME", help="How far back: 12h, 30d. Whole hours count.")] = "30d",
    by: Annotated[
        str, typer.Option(metavar="NAMES", help="tenant, key, model, variant, day, hour, with commas.")
    ] = "tenant,model",
    json: AsJson = False,
    store: StoreUrl = None,
    name: Name = "default",
) -> None:
    """Show who used what: requests, tokens and GPU-seconds. Works after the run too.

    \b
    headrace usage
    headrace usage --since 7d --by tenant,key,day
    headrace usage --by tenant,model,variant --json
    """
    from headrace.usage import command

    command(since=since, by=by, as_json=json, run=name, store=store)


@commands.command()
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
