"""What should be done to which model? The values of recipe.yaml, validated once."""

import hashlib
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from deployments import yaml_text
from deployments.file_errors import FileError, describe

Share = Annotated[float, Field(gt=0, lt=1)]
SETTINGS = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def one_complaint(wanted: str) -> WrapValidator:
    """Of a field that may be of several kinds: says what it should be, instead of what is wrong by each of them."""

    def check(value: Any, inner: ValidatorFunctionWrapHandler) -> Any:
        try:
            return inner(value)
        except ValidationError:
            raise ValueError(f"should be {wanted}, got {value!r}") from None

    return WrapValidator(check)


class Slice(BaseModel):
    """A piece of text, cut into blocks of tokens."""

    model_config = SETTINGS

    text: str = "topics"
    """`topics`: Python's own documentation; or a file, in which empty lines part documents."""
    blocks: Annotated[int, Field(ge=1)] = 12
    tokens: Annotated[int, Field(ge=8)] = 512
    """Tokens of each block."""


class DropLayers(BaseModel):
    """Depth: removes the layers that change their input least (Block Influence, ShortGPT, arXiv 2403.03853)."""

    model_config = SETTINGS

    do: Literal["drop_layers"]
    layers: Annotated[int, Field(ge=1)]
    """How many go."""


class NarrowFfn(BaseModel):
    """Width: removes the same number of neurons from every feed-forward network."""

    model_config = SETTINGS

    do: Literal["narrow_ffn"]
    share: Share
    """Part of the neurons that goes, before rounding to `multiple`."""
    by: Literal["activation", "magnitude", "random"] = "activation"
    """activation: norm on calibration text times output weights; magnitude: weights alone."""
    repair: bool = True
    """Fit the output weights of the rest to what all gave, by least squares."""
    multiple: Annotated[int, Field(ge=1)] = 64
    """The width that is left divides by this, and so by tensor parallelism and quantization groups."""


class NarrowAttention(BaseModel):
    """Width: removes key-value heads, each with the query heads that read it, from every layer."""

    model_config = SETTINGS

    do: Literal["narrow_attention"]
    kv_heads: Annotated[int, Field(ge=1)]
    """How many go."""
    repair: bool = True
    """Fit the output weights of the rest to what all gave, by least squares."""


class Mask(BaseModel):
    """Sets weights to zero. No serving gain: vLLM stores and multiplies the zeros."""

    model_config = SETTINGS

    do: Literal["mask"]
    by: Literal["magnitude", "wanda", "sparsegpt"]
    sparsity: Share = 0.5
    """Part of the weights of the layers' linear maps that becomes zero."""
    pattern: Literal["unstructured", "2:4"] = "unstructured"
    """2:4: two of each four neighbours (sparsity is 0.5 then)."""
    rounds: Annotated[int, Field(ge=1)] = 1
    """magnitude only: sparsity rises along a cubic over so many rounds (arXiv 1710.01878)."""
    recovery_steps: Annotated[int, Field(ge=0)] = 0
    """magnitude only: training steps after each round, on calibration text, the mask held."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.pattern == "2:4" and self.sparsity != 0.5:
            raise ValueError(f"sparsity must be 0.5 with pattern 2:4, got {self.sparsity}")
        if self.by != "magnitude" and (self.rounds > 1 or self.recovery_steps):
            raise ValueError(f"rounds and recovery_steps go with magnitude, not with {self.by}")
        return self


class Quantize(BaseModel):
    """Fewer bits for the weights (and activations) of the layers' linear maps, by llm-compressor."""

    model_config = SETTINGS

    do: Literal["quantize"]
    scheme: Literal["w8a8", "w4a16", "w4a16_asym", "fp8"]
    """w8a8: int8 weights by channel, activations by token; w4a16: 4-bit weights; fp8: 8-bit floats, both."""
    by: Literal["rtn", "gptq", "awq"] = "rtn"
    """How weights are rounded: to the nearest, or by calibration text."""
    group: Annotated[
        Annotated[int, Field(ge=1)] | Literal["auto", "channel"],
        one_complaint("auto, channel or a whole number from 1 on"),
    ] = "auto"
    """4-bit only: weights that share a scale. auto: the largest of 128, 64 and 32 that divides."""
    smooth: Annotated[float, Field(ge=0, le=1)] = 0.0
    """SmoothQuant's strength before it; 0: none."""
    kv_cache: Literal["auto", "fp8"] = "auto"
    """fp8: calibrated scales for an 8-bit key-value cache."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.scheme == "fp8" and self.by != "rtn":
            raise ValueError(f"fp8 is rounded to the nearest (by: rtn), got by: {self.by}")
        if self.by == "awq" and not self.scheme.startswith("w4"):
            raise ValueError(f"awq is for 4-bit weights, got scheme {self.scheme}")
        if self.group != "auto" and not self.scheme.startswith("w4"):
            raise ValueError(f"group is for 4-bit weights, got scheme {self.scheme}")
        return self


class FewerLayers(BaseModel):
    """A student of some of the layers that come in: evenly spread, the first and the last among them."""

    model_config = SETTINGS

    layers: Annotated[int, Field(ge=1)]
    """How many stay."""


class OnPolicy(BaseModel):
    """The student goes on from beginnings of the text, and the source judges each token that it wrote (Agarwal et al.,
    arXiv 2306.13649)."""

    model_config = SETTINGS

    prompt_tokens: Annotated[int, Field(ge=1)] = 64
    """Of each block, from its beginning: what the student goes on from."""
    new_tokens: Annotated[int, Field(ge=1)] = 64
    """What it writes at most."""


class Distil(BaseModel):
    """Training: what came in learns to say what the source says (Hinton et al., arXiv 1503.02531)."""

    model_config = SETTINGS

    do: Literal["distil"]
    student: Annotated[Literal["pruned"] | FewerLayers, one_complaint("pruned or {layers: how many stay}")] = "pruned"
    """pruned: what the steps before left; or a smaller one that begins with some of its layers."""
    loss: Literal["forward_kl", "reverse_kl"] = "forward_kl"
    """forward_kl: KL(source || student), which spreads; reverse_kl: KL(student || source), which keeps to what the
    source finds likely (MiniLLM, arXiv 2306.08543)."""
    top_k: Annotated[int, Field(ge=1)] = 32
    """Likeliest tokens that the source tells for each place; all others count as one. With on_policy it tells all."""
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Above 1 both are softened before they are compared; with on_policy the student also writes at it."""
    on_policy: OnPolicy | None = None
    """Learns from what the student writes itself, by TRL, on one worker; {} takes the defaults."""
    text: Slice = Slice(blocks=96)
    """What is read while training; documents of the calibration part only."""
    steps: Annotated[int, Field(ge=1)] = 200
    batch_blocks: Annotated[int, Field(ge=1)] = 8
    """Blocks of the text in one step, over all workers together."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4
    """At its highest."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the rate goes on after the warm-up; a cosine ends at a tenth."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Part of the steps in which the rate rises."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: products are computed in it, weights and optimizer stay in float32. Faster where the hardware
    multiplies it (GPUs, CPUs with AMX), slower elsewhere."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Processes that share each step's blocks, each with a GPU or, where there is none, a core."""
    sharded: bool = False
    """Workers share the weights and the optimizer's state too (FSDP2): for what one alone can't hold."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 50
    """Steps after which training that was killed can go on."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.batch_blocks % self.workers:
            raise ValueError(f"batch_blocks must divide by the {self.workers} workers, got {self.batch_blocks}")
        if self.batch_blocks > self.text.blocks:
            raise ValueError(f"batch_blocks must be at most text.blocks ({self.text.blocks}), got {self.batch_blocks}")
        if self.sharded and self.workers == 1:
            raise ValueError("sharded needs at least 2 workers, got 1")
        if self.on_policy:
            self._possible_on_policy(self.on_policy)
        return self

    def _possible_on_policy(self, asked: OnPolicy) -> None:
        if self.workers > 1:
            raise ValueError(f"on_policy trains on one worker, got workers: {self.workers}")
        if self.top_k != type(self).model_fields["top_k"].default:
            raise ValueError(f"top_k goes without on_policy, where the source tells all tokens, got {self.top_k}")
        if asked.prompt_tokens > self.text.tokens:
            raise ValueError(
                f"on_policy.prompt_tokens must be at most text.tokens ({self.text.tokens}), got {asked.prompt_tokens}"
            )


Edit = DropLayers | NarrowFfn | NarrowAttention | Mask | Quantize
"""Steps that one process does in one go, on the calibration text."""
Step = Annotated[DropLayers | NarrowFfn | NarrowAttention | Mask | Distil | Quantize, Field(discriminator="do")]


class Speed(BaseModel):
    """How speed is measured in vLLM, artefact and parent in turns."""

    model_config = SETTINGS

    rounds: Annotated[int, Field(ge=5)] = 8
    """Each is one measurement of both. Intervals of fewer than five would promise too much."""
    batches: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 8)
    """Requests at once."""
    prompt_tokens: Annotated[int, Field(ge=8)] = 256
    """Of each prompt, when prefill is measured."""
    output_tokens: Annotated[int, Field(ge=8)] = 48
    """Of each answer, when decode is measured."""


class Recipe(BaseModel):
    """A model and the steps that make it smaller, in order."""

    model_config = SETTINGS

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=63)]
    """What the artefact is called: letters, digits, `.`, `_` and `-`."""
    source: Annotated[str, Field(min_length=1)]
    """A fetched name (`smollm2`, `tiny`), a folder, or a hub id."""
    steps: Annotated[tuple[Step, ...], Field(json_schema_extra={"minItems": 1})]
    calibration: Slice = Slice()
    evaluation: Slice = Slice(blocks=8)
    """Text is split by a hash of each document: the two never share one."""
    tasks: tuple[str, ...] = ("continuation",)
    """`continuation`: the true next words among four, from the evaluation text; or lm-eval task files (YAML)."""
    speed: Speed = Speed()
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @model_validator(mode="after")
    def _possible_steps(self) -> Self:
        # Not by a length: pydantic counts only those that are right, and would complain twice.
        if not self.steps:
            raise ValueError("steps must hold at least one step")
        for step in self.steps[:-1]:
            if isinstance(step, Quantize):
                raise ValueError("quantize must be the last step: what is quantized can't be cut or trained")
        if any(isinstance(a, Mask) and isinstance(b, Distil) for a, b in combinations(self.steps, 2)):
            raise ValueError("distil must not follow mask: training would fill the zeros")
        return self

    @property
    def hash(self) -> str:
        """SHA-256 over everything that decides what the steps do; the name does not."""
        return hashlib.sha256(self.model_dump_json(exclude={"name"}).encode()).hexdigest()

    @property
    def rounds_activations(self) -> bool:
        """Whether activations or the key-value cache lose bits too: kernels may then round otherwise."""
        return any(
            isinstance(step, Quantize) and (step.scheme in ("w8a8", "fp8") or step.kv_cache == "fp8")
            for step in self.steps
        )


def read(path: Path) -> Recipe:
    """A recipe file's values. Raises FileError."""
    return yaml_text.read(path, validate)


def validate(values: object) -> Recipe:
    """Checks values as a recipe file would hold them. Raises FileError, one line for each wrong field."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise FileError("\n".join(describe(item, Recipe) for item in error.errors())) from None
