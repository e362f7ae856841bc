"""What does an hour of a device cost? A YAML file that the user edits says it; without a price there is no cost."""

import shutil
from datetime import date
from pathlib import Path
from typing import Annotated

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cluster.device_facts import BY_NAME
from deployments import yaml_text
from deployments.file_errors import FileError, describe, nearest
from headrace.failure import bad_input

SETTINGS = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
FILE = "prices.yaml"
DEVICES = (*BY_NAME, "cpu")


class Price(BaseModel):
    """Of one device."""

    model_config = SETTINGS

    per_hour: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Of one device, its share of the machine included."""
    date: date
    """When it was so."""
    example: bool = False
    """Whether it is only there to show the file's form."""
    source: str = ""
    """Who asks for it."""


class Prices(BaseModel):
    """All that are known."""

    model_config = SETTINGS

    currency: Annotated[str, Field(min_length=1)] = "USD"
    devices: dict[str, Price]
    """By the names that --gpu takes."""

    @field_validator("devices")
    @classmethod
    def _known(cls, devices: dict[str, Price]) -> dict[str, Price]:
        for name in devices:
            if name not in DEVICES:
                near = nearest(name, list(DEVICES))
                raise ValueError(f"{name} is no device{near} (known: {', '.join(DEVICES)})")
        return devices


def read(given: str | None) -> tuple[Path, Prices]:
    """The file that was named, or else the user's own, which begins as a copy of the examples. Raises Failure."""
    path = Path(given).expanduser() if given else _own()
    try:
        return path, yaml_text.read(path, _validate)
    except FileError as error:
        lines = str(error).splitlines()
        raise bad_input("\n".join(f"--prices: {line}" if given else line for line in lines)) from None


def _own() -> Path:
    """In the user's folder for configuration; the examples themselves where that can't be written."""
    examples = Path(__file__).parent / FILE
    own = platformdirs.user_config_path("headrace", appauthor=False) / FILE
    try:
        own.parent.mkdir(parents=True, exist_ok=True)
        if not own.exists():
            shutil.copyfile(examples, own)
    except OSError:
        return own if own.exists() else examples
    return own


def _validate(values: object) -> Prices:
    try:
        return Prices.model_validate(values)
    except ValidationError as error:
        raise FileError("\n".join(describe(line, Prices) for line in error.errors())) from None
