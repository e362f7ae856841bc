"""What does a fleet file say of one tenant?"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Tenant(BaseModel):
    """Somebody who shares the fleet, known by keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=63)]
    """Letters, digits, `.`, `_` and `-`."""
    key_hashes: list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = []
    """SHA-256 of keys of its own making, in hexadecimal: `printf %s KEY | sha256sum`. Those that `headrace keys create
    --tenant NAME` makes are in the store and need no line here."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Its share of tokens beside those of the others, while they wait too."""
    tier: Literal["interactive", "standard", "batch"] = "interactive"
    """The most urgent tier that it gets, whatever its requests ask for."""
    max_queued_requests: Annotated[int, Field(ge=1)] | None = None
    """Requests that it may have waiting in one router for one model (429). null: as many as the router keeps."""
    max_open_requests: Annotated[int, Field(ge=1)] | None = None
    """The same of those that wait or run. null: no limit of its own."""
    min_quality: Annotated[float, Field(ge=0, le=1)] = 0.0
    """No variant of less quality ever answers it. 1: the models themselves alone."""
