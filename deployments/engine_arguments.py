"""Which engine arguments does the installed vLLM know? Read from its source: importing it takes seconds."""

import ast
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deployments.file_errors import FileError, nearest
from deployments.fleet import Fleet

DEFINED_IN = "engine/arg_utils.py"
CLASSES = ("EngineArgs", "AsyncEngineArgs")
SERVER_SETTINGS = ("tool_call_parser", "enable_auto_tool_choice", "exclude_tools_when_tool_choice_none")
"""What vLLM's server takes beside engine arguments, and a fleet may give among them. Templates are not: routers render
with the checkpoint's own."""


def check(fleet: Fleet) -> None:
    """Raises FileError, one line for each unknown engine argument. Without vLLM none is checked."""
    if not (known := known_arguments()):
        return
    wrong = [
        f"{where}.engine.{name}: vLLM has no such engine argument{nearest(name, known)}"
        for where, given in _given(fleet)
        for name in given
        if name not in known
    ]
    if wrong:
        raise FileError("\n".join(wrong))


def _given(fleet: Fleet) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Engine arguments with the places where the file gives them."""
    for i, model in enumerate(fleet.models):
        yield f"models[{i}]", model.engine
        for j, variant in enumerate(model.variants):
            yield f"models[{i}].variants[{j}]", variant.engine


def known_arguments() -> list[str]:
    """Names of vLLM's engine arguments and of SERVER_SETTINGS; empty where vLLM is not installed."""
    found = find_spec("vllm")
    if found is None or found.origin is None:
        return []
    tree = ast.parse((Path(found.origin).parent / DEFINED_IN).read_text())
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in CLASSES)
    fields = (node.target for part in classes for node in part.body if isinstance(node, ast.AnnAssign))
    return [*(field.id for field in fields if isinstance(field, ast.Name)), *SERVER_SETTINGS]
