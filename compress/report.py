"""What did a recipe give, and what did it cost? The values of report.json.

Every figure that was measured carries its 95 % interval; `ratio` is always artefact / parent.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from compress.shape import PartName
from deployments.file_errors import FileError, describe

FILE = "report.json"
SETTINGS = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Interval(BaseModel):
    """A measured value and the bounds between which it lies with 95 % confidence."""

    model_config = SETTINGS

    value: float
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.high:
            raise ValueError(f"low must not be above high, got {self.low} and {self.high}")
        return self

    def excludes(self, value: float) -> bool:
        """Whether the interval lies on one side of a value."""
        return value < self.low or value > self.high


class Part(BaseModel):
    """What one part of the checkpoint weighs on disk."""

    model_config = SETTINGS

    part: PartName
    """scales: scales, zero points and shapes of quantized weights."""
    parent_bytes: int
    bytes: int


class Size(BaseModel):
    """How large the checkpoint is."""

    model_config = SETTINGS

    parent_bytes: int
    """Tensors on disk."""
    bytes: int
    parent_parameters: int
    parameters: int
    parent_kv_bytes_per_token: int
    """Key-value cache, all layers together, at the dtype that it is served with."""
    kv_bytes_per_token: int
    parts: tuple[Part, ...]


class Quality(BaseModel):
    """What an executor computes on the evaluation text, for parent and artefact."""

    model_config = SETTINGS

    executor: Literal["transformers", "vllm"]
    """transformers: the compressor's own forward pass; vllm: the engine that serves."""
    parent_perplexity: Interval
    perplexity: Interval
    ratio: Interval
    """Perplexity, artefact / parent, resampled over the same blocks."""
    kl: Interval | None
    """Mean KL(parent || artefact), nats per token; None where the executor gives no full distributions."""
    top1: Interval
    """Share of tokens for which both find the same next token likeliest."""


class Speed(BaseModel):
    """How fast vLLM runs on this machine, parent and artefact in turns."""

    model_config = SETTINGS

    what: Literal["prefill", "decode", "first_token"]
    """prefill: prompt tokens/s; decode: output tokens/s; first_token: seconds until it."""
    batch: Annotated[int, Field(ge=1)]
    prompt_tokens: int
    output_tokens: int
    unit: Literal["tokens/s", "s"]
    parent: Interval
    artefact: Interval
    ratio: Interval
    """artefact / parent, over the same rounds: above 1 is faster for tokens/s, slower for s."""
    rounds: int


class Task(BaseModel):
    """Share of a task's items that are answered rightly, by lm-eval through vLLM."""

    model_config = SETTINGS

    name: str
    items: int
    chance: float
    parent: Interval
    artefact: Interval
    difference: Interval
    """artefact - parent, on the same items."""
    flips: float
    """Share of items that only one of the two answers rightly."""
    above_chance: bool
    """Whether the parent's interval lies above chance; else the scores say nothing and are not shown."""


class Gate(BaseModel):
    """Does vLLM compute what the compressor computed?"""

    model_config = SETTINGS

    tokens: int
    kl: float
    """Mean KL(vLLM || compressor) over vLLM's 20 likeliest tokens and the rest as one, nats per token."""
    top1: float
    """Share of tokens for which both find the same next token likeliest."""
    kl_limit: float
    top1_limit: float
    engine_dtype: str


class StepDone(BaseModel):
    """One step of the recipe as it was carried out."""

    model_config = SETTINGS

    step: dict[str, Any]
    """As in the recipe."""
    hash: str
    """Names its result: parent, step, text, seed and tool versions."""
    weights_hash: str
    """SHA-256 of what came out."""
    seconds: float
    cpu_seconds: float
    """Of the process that carried it out; engines and other workers do not count."""
    found: dict[str, Any]
    """What the step measured, such as Block Influence of each layer, or a training's `learning_curve`: lists of steps,
    losses (nats per token) and seconds, of the same length."""


class Lineage(BaseModel):
    """Where the artefact comes from."""

    model_config = SETTINGS

    source: str
    parent_hash: str
    """SHA-256 of the parent's weights and config."""
    parent_quantized: str | None
    """How the parent's weights were already rounded before, if they were: losses are relative to that."""
    recipe_hash: str
    calibration_hash: str
    evaluation_hash: str
    weights_hash: str
    versions: dict[str, str]
    machine: dict[str, Any]
    made_at: str
    """ISO 8601, UTC."""


class Report(BaseModel):
    """Everything that is known about an artefact."""

    model_config = SETTINGS

    format: Literal[1] = 1
    name: str
    recipe: dict[str, Any]
    labels: tuple[str, ...]
    """What a user must know first, such as that masks bring no serving gain."""
    lineage: Lineage
    steps: tuple[StepDone, ...]
    size: Size
    gate: Gate
    quality: tuple[Quality, ...]
    speed: tuple[Speed, ...]
    tasks: tuple[Task, ...]
    break_even_tokens: dict[str, float | None]
    """Tokens after which the seconds saved repay the steps' seconds, by speed measured; None: never."""


def load(folder: Path) -> Report:
    """The report beside an artefact. Raises FileError."""
    path = folder / FILE
    try:
        return Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise FileError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except ValidationError as error:
        raise FileError("\n".join(f"{path}: {describe(line, Report)}" for line in error.errors())) from None
