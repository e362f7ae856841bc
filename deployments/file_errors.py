"""What is wrong with a file that a user wrote? One line: which field, what it was, what is allowed."""

from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

Location = tuple[int | str, ...]
"""Pydantic's: names of fields and numbers of items."""


class FileError(ValueError):
    """A file that can't be used; each line names a field, what it was and what is allowed."""


def describe(error: ErrorDetails, root: type[BaseModel]) -> str:
    """One line for one of pydantic's errors about a value of `root`."""
    where, given = _path(_followed(error["loc"], root)[0]) or "the file", error["input"]
    if error["type"] in ("union_tag_not_found", "union_tag_invalid"):
        return _no_member(where, error, root)
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


def _unknown(location: Location, root: type[BaseModel]) -> str:
    fields = _fields(location[:-1], root)
    known = list(fields)
    return f"unknown field{nearest(str(location[-1]), known)} (allowed: {', '.join(known)})"


def _no_member(where: str, error: ErrorDetails, root: type[BaseModel]) -> str:
    """For values of a union, the field that says which member they are is missing or says none of them."""
    field = error.get("ctx", {})["discriminator"].strip("'")
    members = _kinds(_followed(error["loc"], root)[1])
    known = [tag for member in members for tag in get_args(member.model_fields[field].annotation)]
    allowed = f"one of {', '.join(known)}"
    if field not in error["input"]:
        return f"{where}.{field}: is missing ({allowed})"
    given = error["input"][field]
    return f"{where}.{field}: should be {allowed}, got {_short(given)}{nearest(str(given), known)}"


def _allowed(error: ErrorDetails) -> str:
    if error["type"] == "string_pattern_mismatch":
        return "should be letters, digits, '.', '_' and '-', beginning with a letter or digit"
    if error["type"] == "too_short":
        return f"should have at least {error['ctx']['min_length']}" if "ctx" in error else error["msg"]
    subject, _, rest = error["msg"].partition(" ")
    return rest if subject in ("Input", "String", "Value") else error["msg"]


def _meaning(location: Location, root: type[BaseModel]) -> str:
    field = _fields(location[:-1], root).get(str(location[-1]))
    return f" ({field.description.rstrip('.')})" if field is not None and field.description else ""


def _fields(location: Location, root: type[BaseModel]) -> dict[str, Any]:
    """The fields of the model that a location leads to; none where it leads to something else."""
    kind = _followed(location, root)[1]
    return kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else {}


def _followed(location: Location, root: type[BaseModel]) -> tuple[Location, Any]:
    """A location as the user wrote it, without pydantic's marks for members of unions, and what it leads to."""
    kind: Any = root
    written: list[int | str] = []
    for step in location:
        if isinstance(step, str) and (meant := _of_union(kind, step)) is not None:
            kind = meant
            continue
        written.append(step)
        kind = _inside(kind, step)
    return tuple(written), kind


def _inside(kind: Any, step: int | str) -> Any:
    """What a field or an item of some kind is; None where that isn't known."""
    if isinstance(step, int):
        kind = next(iter(get_args(kind)), None)
    elif isinstance(kind, type) and issubclass(kind, BaseModel) and step in kind.model_fields:
        kind = kind.model_fields[step].annotation
    else:
        return None
    kinds = _kinds(kind)
    return kinds[0] if len(kinds) == 1 else kind


def _kinds(kind: Any) -> list[Any]:
    """The kinds of a union, but None; a kind by itself."""
    if get_origin(kind) is Annotated:
        return _kinds(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [part for part in get_args(kind) if part is not type(None)]
    return [kind]


def _of_union(kind: Any, tag: str) -> Any:
    """The model that a tag stands for, in a union whose models each have a field with a literal of its own."""
    for model in _kinds(kind):
        literals = [get_args(field.annotation) for field in getattr(model, "model_fields", {}).values()]
        if len(_kinds(kind)) > 1 and any(tag in values for values in literals):
            return model
    return None


def _path(location: Location) -> str:
    plain = (f".{step}" if isinstance(step, str) and step.isidentifier() else f"[{step!r}]" for step in location)
    return "".join(plain).removeprefix(".")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
