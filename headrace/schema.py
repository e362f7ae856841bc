"""What may a file of Headrace's hold, in a form that editors and programs understand?"""

import json
from pathlib import Path
from typing import Literal

What = Literal["fleet", "recipe", "report"]
"""fleet.yaml and recipe.yaml, which users write; report.json, which `compress` writes."""


def schema(what: What = "fleet") -> str:
    """The JSON schema of a kind of file."""
    match what:
        case "fleet":
            from deployments.fleet import Fleet as model
        case "recipe":
            from compress.recipe import Recipe as model
        case "report":
            from compress.report import Report as model
    return json.dumps(model.model_json_schema(), indent=2)


def write(folder: Path) -> None:
    """Writes every schema into a folder, such as docs."""
    whats: tuple[What, ...] = ("fleet", "recipe", "report")
    for what in whats:
        (folder / f"{what}.schema.json").write_text(f"{schema(what)}\n")
