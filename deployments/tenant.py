"""What does a fleet file say of one tenant?"""

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

import routing

Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Budget(BaseModel):
    """What a tenant may use in a period: either tokens or GPU-seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    tokens: Annotated[int, Field(ge=1)] | None = None
    """Of prompts and answers together, those from a cache too."""
    gpu_s: Amount | None = None
    """Seconds of a GPU, as `headrace usage` counts them."""
    per: Literal["day", "month", "total"]
    """Days and months of UTC; `total`: once and for all."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.tokens is None) == (self.gpu_s is None):
            raise ValueError("a budget should have either tokens or gpu_s")
        return self

    @property
    def limit(self) -> routing.Limit:
        period = routing.Period(self.per)
        if self.tokens is not None:
            return routing.Limit(unit="tokens", amount=self.tokens, period=period)
        return routing.Limit(unit="gpu_s", amount=self.gpu_s or 0.0, period=period)


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
    requests_per_min: Annotated[int, Field(ge=1)] | None = None
    """Requests that come in within any minute, over all routers (429). null: no limit."""
    tokens_per_min: Annotated[int, Field(ge=1)] | None = None
    """The same of tokens of prompts and answers. null: no limit."""
    budgets: list[Budget] = []
    """What it may use in all; what could exceed one is refused (429)."""

    @property
    def limits(self) -> tuple[routing.Limit, ...]:
        """Of all routers together."""
        minutes = (("requests", self.requests_per_min), ("tokens", self.tokens_per_min))
        rates = [routing.Limit(unit=unit, amount=amount) for unit, amount in minutes if amount is not None]
        return (*rates, *(budget.limit for budget in self.budgets))

    @field_validator("budgets")
    @classmethod
    def _budgets_differ(cls, budgets: list[Budget]) -> list[Budget]:
        for name, count in Counter(budget.limit.name for budget in budgets).most_common(1):
            if count > 1:
                raise ValueError(f"one budget of a kind, {name} appears {count} times")
        return budgets
