"""What is wrong with a file that a user wrote? One line: which field, what it was, what is allowed."""

from difflib import get_close_matches
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails


class FileError(ValueError):
    """A file that can't be used; each line names a field, what it was and what is allowed."""


def describe(error: ErrorDetails, root: type[BaseModel]) -> str:
    """One line for one of pydantic's errors about a value of `root`."""
    where, given = _path(error["loc"]) or "the file", error["input"]
    if error["type"] == "extra_forbidden":
        return f"{where}: {_unknown(error['loc'], root)}"
    if error["type"] == "missing":
        return f"{where}: is missing{_meaning(error['loc'], root)}"
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}" if "ctx" in error else f"{where}: {error['msg']}"
    if error["type"] in ("model_type", "model_attributes_type"):
        return f"{where}: should be fields and values, got {_short(given)}"
    return f"{where}: {_allowed(error)}, got {_short(given)}"


def nearest(name: str, known: list[str]) -> str:
    """`, did you mean X?` when a known name is close to `name`, else nothing."""
    close = get_close_matches(name, known, n=1)
    return f", did you mean {close[0]}?" if close else ""


def _unknown(location: tuple[int | str, ...], root: type[BaseModel]) -> str:
    fields = _fields(location[:-1], root)
    known = list(fields)
    return f"unknown field{nearest(str(location[-1]), known)} (allowed: {', '.join(known)})"


def _allowed(error: ErrorDetails) -> str:
    if error["type"] == "string_pattern_mismatch":
        return "should be letters, digits, '.', '_' and '-', beginning with a letter or digit"
    if error["type"] == "too_short":
        return f"should have at least {error['ctx']['min_length']}" if "ctx" in error else error["msg"]
    subject, _, rest = error["msg"].partition(" ")
    return rest if subject in ("Input", "String", "Value") else error["msg"]


def _meaning(location: tuple[int | str, ...], root: type[BaseModel]) -> str:
    field = _fields(location[:-1], root).get(str(location[-1]))
    return f" ({field.description.rstrip('.')})" if field is not None and field.description else ""


def _fields(location: tuple[int | str, ...], root: type[BaseModel]) -> dict[str, Any]:
    """The fields of the model that a location leads to; none where it leads to something else."""
    kind: Any = root
    for step in location:
        if isinstance(step, int):
            kind = next(iter(get_args(kind)), None)
        elif isinstance(kind, type) and issubclass(kind, BaseModel) and step in kind.model_fields:
            kind = kind.model_fields[step].annotation
        else:
            return {}
        if get_origin(kind) in (Union, UnionType):
            kind = next((part for part in get_args(kind) if part is not type(None)), None)
    return kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else {}


def _path(location: tuple[int | str, ...]) -> str:
    plain = (f".{step}" if isinstance(step, str) and step.isidentifier() else f"[{step!r}]" for step in location)
    return "".join(plain).removeprefix(".")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
