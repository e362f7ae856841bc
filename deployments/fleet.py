"""What does a user ask for? The values of fleet.yaml, validated once."""

from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from autoscaling import Targets
from deployments import yaml_text
from deployments.file_errors import FileError, describe
from deployments.served_model import Model
from deployments.tenant import Tenant

USUAL = Targets()
"""What scaling aims for where the file does not say."""
SQLITE = "sqlite:///"
"""Begins the URL of a store in a file."""


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Most = Annotated[int, Field(ge=1)]


class Limits(BaseModel):
    """What one request, or one connection, may take. What is beyond is refused before an engine hears of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    body_bytes: Most = 32 << 20
    """Largest body (413)."""
    head_bytes: Most = 64 << 10
    """Longest request line and headers together, and longest trailer (400)."""
    head_s: Seconds = 30.0
    """Seconds within which the head of a request must come (408)."""
    body_s: Seconds = 120.0
    """Seconds within which its body must follow (408)."""
    prompt_tokens: Most | None = None
    """Longest prompt, where this server tokenizes it: plain text (400). null: the model's context."""
    max_tokens: Most | None = None
    """Longest answer. What asks for more is refused (400), what names no length gets this one. null: the context."""
    n: Most = 128
    """Most choices (400)."""
    stop_strings: Most = 64
    """Most strings in `stop` or `stop_sequences` (400)."""
    file_bytes: Most = 200 << 20
    """Largest file that comes in (413)."""
    tenant_files_bytes: Most = 10 << 30
    """All files of a tenant together; what would exceed that does not come in (413)."""
    batch_lines: Most = 50_000
    """Most lines of a batch's input file."""
    tenant_open_batches: Most = 100
    """Batches of a tenant that have not ended (429)."""
    open_requests: Most = 4096
    """Requests that one router answers at once, streams among them (503)."""
    first_token_s: Seconds = 300.0
    """Seconds that a stream of plain text may need to begin, its time in the queue included (504)."""
    between_tokens_s: Seconds = 120.0
    """Seconds that it may be silent after that: as long as a lost replica's successor may need (504)."""


class Deadlines(BaseModel):
    """Seconds within which the first token must come, by tier, where a request says nothing. null: no deadline."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    interactive: Seconds | None = None
    """Of `service_tier: priority`."""
    standard: Seconds | None = None
    """Of `default`, and of requests that name no tier."""
    batch: Seconds | None = None
    """Of `flex`."""


class RouterSettings(BaseModel):
    """The front door."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every interface."""
    open: bool | None = None
    """May anybody ask, without a key? null: on loopback, while there is neither a tenant nor a key; nowhere else."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port of the OpenAI-compatible endpoint."""
    replicas: Annotated[int, Field(ge=1)] = 1
    """Routers, each with its own queue."""
    max_queued_requests: Annotated[int, Field(ge=1)] = 1024
    """Requests one router keeps waiting for one model before it refuses more; for each tier, those as urgent count."""
    longest_stream_s: Seconds = 600.0
    """Seconds from a request's arrival after which its answer ends with an error. What is stopped finishes the rest."""
    limits: Limits = Limits()
    deadlines: Deadlines = Deadlines()
    continuations: Annotated[int, Field(ge=0)] = 2
    """How often a stream goes on at another replica when its own is lost; 0 ends it with an error at once."""
    batches_kept_days: Most = 90
    """Days for which a batch can be looked at after its end. Its files go when they expire, or are deleted."""
    settle_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Seconds for which a router that is stopped takes connections: until load balancers see that /ready fails."""
    allow_media_urls: bool = False
    """Let requests name images, audio and video by URL, which engines then fetch. Inline `data:` URLs always pass."""
    allow_chat_templates: bool = False
    """Let requests bring a chat template of their own, which engines then run."""

    @property
    def lets_in(self) -> bool | None:
        """Whether who has no key comes in. None: while there is neither a tenant nor a key."""
        return self.open if self.open is not None or _is_loopback(self.host) else False


class Scaling(BaseModel):
    """How replicas follow load."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    ttft_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = USUAL.ttft_s
    """Seconds from a request's arrival to its first token that users should not wait longer than."""
    token_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = USUAL.token_s
    """The same from one token of an answer to the next, in the mean over an answer."""
    attainment: Annotated[float, Field(gt=0, le=1)] = USUAL.attainment
    """Share of requests that should meet both."""
    target_utilization: Annotated[float, Field(gt=0, le=1)] = USUAL.target_utilization
    """Share of an engine's time, slots and cache that load may take."""
    hold_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = USUAL.hold_s
    """Seconds for which the largest recent wish is kept before going down; at least as long as a start takes."""
    advise: bool = False
    """Only tell what would be done (`headrace scaling`), while Ray Serve's own law scales."""
    ongoing_requests: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    """With `advise`: requests that Serve's law gives each engine (its `target_ongoing_requests`)."""

    def targets(self) -> Targets:
        """What scaling aims for."""
        return Targets(**self.model_dump(exclude={"advise", "ongoing_requests"}))


class ClusterSettings(BaseModel):
    """The Ray cluster that carries the fleet."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    address: Literal["local"] = "local"
    """`local` starts Ray on this machine, on loopback, for as long as the fleet runs."""


class StoreSettings(BaseModel):
    """Where what must be kept lies: keys, usage, what is left of budgets, files, batches, scale decisions."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    url: Annotated[str, Field(pattern=r"^(sqlite:///|postgresql\+psycopg://).+$")] | None = None
    """`sqlite:///FILE` where all routers run on one machine, or `postgresql+psycopg://USER:PASSWORD@HOST/DATABASE`.
    null: an SQLite file in the state folder, named as the run."""
    files: Annotated[str, Field(pattern=r"^(/|[a-z][a-z0-9+]*://).+$")] | None = None
    """Where files of `/v1/files` lie: a folder, `s3://BUCKET/PREFIX`, `gcs://BUCKET/PREFIX`, or another URL of fsspec.
    null: a folder beside the store's file; with PostgreSQL, nowhere, and there are no batches."""


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def sqlite_url(file: Path) -> str:
    """URL of a store in this file."""
    return f"{SQLITE}{file}"


def files_url(store: StoreSettings) -> str | None:
    """Where files lie: where a fleet says, else beside a store that is a file; None: nowhere."""
    if store.files is not None or store.url is None or not store.url.startswith(SQLITE):
        return store.files
    return f"{store.url.removeprefix(SQLITE)}.files"


class Fleet(BaseModel):
    """Everything that fleet.yaml says."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    models: Annotated[list[Model], Field(min_length=1)]
    """What is served; each name once."""
    router: RouterSettings = RouterSettings()
    scaling: Scaling = Scaling()
    cluster: ClusterSettings = ClusterSettings()
    store: StoreSettings = StoreSettings()
    tenants: list[Tenant] = []
    """Who shares it, and how. Who has a key of the store and is not named here is one with the usual terms."""

    @field_validator("tenants")
    @classmethod
    def _tenants_differ(cls, tenants: list[Tenant]) -> list[Tenant]:
        for what, values in (
            ("name", [tenant.name for tenant in tenants]),
            ("key hash", [key for tenant in tenants for key in tenant.key_hashes]),
        ):
            for value, count in Counter(values).most_common(1):
                if count > 1:
                    raise ValueError(f"each {what} may appear once, {value!r} appears {count} times")
        return tenants

    @property
    def engines(self) -> list[Model]:
        """What each engine deployment serves: the models, and after each its variants."""
        return [engine for model in self.models for engine in model.engines]

    def with_engines(self, change: Callable[[Model], dict[str, Any]]) -> "Fleet":
        """The fleet with fields of what its engines serve changed, of models and of variants."""
        models = []
        for model in self.models:
            itself, *others = map(change, model.engines)
            pairs = zip(model.variants, others, strict=True)
            itself["variants"] = [variant.model_copy(update=fields) for variant, fields in pairs]
            models.append(model.model_copy(update=itself))
        return self.model_copy(update={"models": models})

    @field_validator("models")
    @classmethod
    def _names_differ(cls, models: list[Model]) -> list[Model]:
        engines = (engine.name for model in models for engine in model.engines)
        name, count = Counter(engines).most_common(1)[0]
        if count > 1:
            raise ValueError(f"each name may appear once, {name!r} appears {count} times")
        return models


def load(path: Path) -> Fleet:
    """Reads and validates a fleet file. Raises FileError."""
    return yaml_text.read(path, validate)


def validate(values: object) -> Fleet:
    """Checks values as a fleet file would hold them. Raises FileError, one line for each field."""
    try:
        return Fleet.model_validate(values)
    except ValidationError as error:
        raise FileError("\n".join(describe(line, Fleet) for line in error.errors())) from None
