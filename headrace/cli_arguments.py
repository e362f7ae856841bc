"""Which arguments mean the same in several commands?"""

from typing import Annotated

import typer

Key = Annotated[
    str | None,
    typer.Option(envvar="HEADRACE_API_KEY", help="Key, where the fleet asks for one. Others can see command lines."),
]
Name = Annotated[str, typer.Option(help="Name of the run, for several runs on one machine.")]
StoreUrl = Annotated[
    str | None,
    typer.Option(metavar="URL", envvar="HEADRACE_STORE", help="Store of a fleet that names its own (`store.url`)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
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
