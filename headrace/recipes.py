"""Which recipes does a command line mean? Files, or a model and what should become of it."""

from pathlib import Path
from typing import Any

from compress.recipe import Recipe, read, validate
from deployments.file_errors import FileError, nearest
from headrace.failure import bad_input
from headrace.serve import model_name

GOALS: dict[str, list[dict[str, Any]]] = {
    "w8a8": [{"do": "quantize", "scheme": "w8a8", "by": "gptq", "smooth": 0.8}],
    "w4a16": [{"do": "quantize", "scheme": "w4a16", "by": "gptq"}],
    "fp8": [{"do": "quantize", "scheme": "fp8"}],
    "smaller": [{"do": "drop_layers", "layers": "tenth"}, {"do": "narrow_ffn", "share": 0.25}],
}
"""What `--to` names; the first of each list is done first."""
FILES = (".yaml", ".yml")


def meant(what: list[str], goal: str | None, layers: int | None) -> list[Recipe]:
    """The recipes of a command line; `layers`: how many the model has, where one was named. Raises Failure."""
    try:
        if goal is None:
            return [read(Path(file)) for file in what]
        return [validate(_short(what[0], goal, layers or 1))]
    except FileError as error:
        raise bad_input(str(error)) from None


def is_file(what: str) -> bool:
    """Whether a word of the command line means a recipe file."""
    return what.endswith(FILES)


def check(what: list[str], goal: str | None) -> None:
    """Raises Failure when the words and `--to` don't go together."""
    if not what:
        raise bad_input("what should be compressed? Recipe files, or a model and --to w8a8|w4a16|fp8|smaller")
    if goal is not None and goal not in GOALS:
        raise bad_input(f"--to: should be one of {', '.join(GOALS)}, got {goal!r}{nearest(goal, list(GOALS))}")
    files = [word for word in what if is_file(word)]
    if goal is None and len(files) < len(what):
        other = next(word for word in what if not is_file(word))
        raise bad_input(f"{other} is no recipe file (.yaml); for a model say what it should become: --to w8a8, ...")
    if goal is not None and (files or len(what) > 1):
        raise bad_input("--to goes with one model; in a recipe file write the steps")


def _short(source: str, goal: str, layers: int) -> dict[str, Any]:
    steps = [dict(step) for step in GOALS[goal]]
    for step in steps:
        if step.get("layers") == "tenth":
            step["layers"] = max(1, round(layers / 10))
    return {"name": f"{model_name(source)}-{goal}", "source": source, "steps": steps}
