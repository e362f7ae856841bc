"""What can be typed after `headrace keys`?"""

from typing import Annotated

import typer

from headrace.cli_arguments import AsJson, Name, StoreUrl

keys = typer.Typer(
    help="Make, list, end and replace the keys that open a fleet.\n\n"
    "  headrace keys create --tenant alice --expires 90d",
    no_args_is_help=True,
    rich_markup_mode=None,
)

KeyId = Annotated[str, typer.Argument(metavar="ID", help="As `headrace keys list` shows it.")]


@keys.command()
def create(
    tenant: Annotated[str, typer.Option(help="Who will hold it: a tenant of fleet.yaml, or a new one.")],
    model: Annotated[list[str] | None, typer.Option(help="A model that it opens (all). Again for more.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="How long it works: 12h, 90d (always).")] = None,
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    requests_per_min: Annotated[int | None, typer.Option(min=1, help="Requests in any minute (no limit).")] = None,
    tokens_per_min: Annotated[int | None, typer.Option(min=1, help="Tokens in any minute (no limit).")] = None,
    budget_tokens: Annotated[
        list[str] | None,
        typer.Option(metavar="N[/PERIOD]", help="Tokens in all, or by day or month: 5000000/month. Again for more."),
    ] = None,
    budget_gpu_s: Annotated[
        list[str] | None, typer.Option(metavar="N[/PERIOD]", help="The same in GPU-seconds: 3600/day.")
    ] = None,
    json: AsJson = False,
    store: StoreUrl = None,
    name: Name = "default",
) -> None:
    """Make a key. It is shown this once, and kept as a hash. Its limits hold beside those of its tenant.

    \b
    headrace keys create --tenant alice
    KEY=$(headrace keys create --tenant ci --model smollm2 --expires 90d --note "nightly tests")
    headrace keys create --tenant ci --requests-per-min 60 --budget-tokens 5000000/month
    """
    from headrace.key_limits import limits
    from headrace.keys import create

    create(
        tenant,
        model or [],
        expires=expires,
        note=note,
        limits=limits(requests_per_min, tokens_per_min, budget_tokens or [], budget_gpu_s or []),
        run=name,
        store=store,
        as_json=json,
    )


@keys.command("list")
def show(
    everything: Annotated[bool, typer.Option("--all", help="Those that work no longer too.")] = False,
    json: AsJson = False,
    store: StoreUrl = None,
    name: Name = "default",
) -> None:
    """List keys by their ids. Keys of fleet.yaml are not among them.

    \b
    headrace keys list
    headrace keys list --all --json
    """
    from headrace.keys import show

    show(everything=everything, run=name, store=store, as_json=json)


@keys.command()
def revoke(key: KeyId, store: StoreUrl = None, name: Name = "default") -> None:
    """End a key.

    \b
    headrace keys revoke 3f9a1b2c
    """
    from headrace.keys import revoke

    revoke(key, run=name, store=store)


@keys.command()
def rotate(
    key: KeyId,
    grace: Annotated[str, typer.Option(metavar="TIME", help="How long the old one still works.")] = "24h",
    json: AsJson = False,
    store: StoreUrl = None,
    name: Name = "default",
) -> None:
    """Make a successor with the same rights. The old key ends after a while.

    \b
    headrace keys rotate 3f9a1b2c
    headrace keys rotate 3f9a1b2c --grace 10m
    """
    from headrace.keys import rotate

    rotate(key, grace=grace, run=name, store=store, as_json=json)
