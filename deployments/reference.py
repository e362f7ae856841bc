"""Which log-probabilities or vectors should this checkpoint give? The files that the numbers check compares with."""

import os
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

FILE = "headrace_reference.json"
VECTORS_FILE = "headrace_vectors.json"
"""Beside the other: one checkpoint may write in one fleet and pool in another."""

Kind = TypeVar("Kind", bound=BaseModel)


class BadReference(ValueError):
    """A reference file that can't be used; its text is one line: which file, which field, what was wrong."""


class Prompt(BaseModel):
    """One text and how likely each of its tokens is, given those before it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    token_ids: Annotated[tuple[int, ...], Field(min_length=2)]
    logprobs: tuple[float, ...]
    """logprobs[i] = ln p(token_ids[i + 1] | token_ids[: i + 1]), in nats: one fewer than token_ids."""

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if len(self.logprobs) != len(self.token_ids) - 1:
            raise ValueError(f"{len(self.logprobs)} logprobs for {len(self.token_ids)} token_ids; one fewer is right")
        return self


class Reference(BaseModel):
    """What a trusted implementation computed. It doesn't say for which weights: changed ones must fail."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    made_by: str
    """The trusted implementation, such as `transformers 5.10.4, float32`."""
    prompts: Annotated[tuple[Prompt, ...], Field(min_length=1)]
    tolerance: Annotated[float, Field(gt=0)] | None = None
    """Largest mean distance of a good engine, in nats, where rounded activations widen it; None: as by dtype."""


class Vector(BaseModel):
    """One text and what it becomes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    token_ids: Annotated[tuple[int, ...], Field(min_length=1)]
    """The whole prompt, special tokens included."""
    values: Annotated[tuple[float, ...], Field(min_length=1)]


class Vectors(BaseModel):
    """What a trusted implementation made of texts, for a model that pools."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    made_by: str
    """The trusted implementation, such as `transformers 5.10.4, float32`."""
    task: Literal["embed", "classify"]
    """vLLM's name for what was computed: embeddings, or classes' scores as clients get them."""
    vectors: Annotated[tuple[Vector, ...], Field(min_length=1)]


def load(folder: Path) -> Reference | None:
    """The reference beside a checkpoint; None where there is none. Raises BadReference."""
    return _read(folder / FILE, Reference)


def load_vectors(folder: Path) -> Vectors | None:
    """The reference vectors beside a checkpoint; None where there are none. Raises BadReference."""
    return _read(folder / VECTORS_FILE, Vectors)


def save(reference: Reference | Vectors, folder: Path) -> None:
    """Writes the reference beside a checkpoint, whole or not at all."""
    name = FILE if isinstance(reference, Reference) else VECTORS_FILE
    aside = folder / f".{name}.partial"
    aside.write_text(reference.model_dump_json(exclude_none=True) + "\n")
    os.replace(aside, folder / name)


def _read(path: Path, kind: type[Kind]) -> Kind | None:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadReference(f"{path}: {where}: {first['msg']}") from None
