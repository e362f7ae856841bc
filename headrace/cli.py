"""What can be typed after `headrace`? Each command loads what it needs when it runs: --help is quick."""

import sys
from typing import Annotated, NoReturn

import typer

from headrace import cli_fleet, cli_models
from headrace.cli_arguments import FleetOrModel, Name
from headrace.cli_batch import batch
from headrace.cli_keys import keys
from headrace.failure import Failure
from headrace.schema import What

app = typer.Typer(
    help="Serve large language models on a Ray cluster.\n\n"
    "  headrace tour\n\n"
    "  headrace serve smollm2 --ask 'Who wrote Hamlet?'\n\n"
    "  headrace init && headrace serve fleet.yaml --detach",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

k8s = typer.Typer(
    help="Run a fleet on Kubernetes with KubeRay.\n\n  headrace k8s render fleet.yaml --overlay gpu",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(cli_fleet.commands)
app.add_typer(cli_models.commands)
app.add_typer(k8s, name="k8s")
app.add_typer(keys, name="keys")
app.add_typer(batch, name="batch")


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


@app.command()
def tour(
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder of what it makes.")] = "headrace-tour",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the endpoint.")] = 8000,
    keep: Annotated[bool, typer.Option("--keep", help="Serve on after the last step, until Ctrl-C.")] = False,
    name: Name = "tour",
) -> None:
    """See all of it in ten minutes: plan, compress, serve, ask and simulate the sample model, step by step.

    \b
    headrace tour
    headrace tour --out /tmp/tour --port 8001 --keep
    """
    from headrace.tour import Options, tour

    tour(Options(out=out, port=port, keep=keep, name=name))


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
