"""What does a fleet file say of one model, and of its variants?"""

from collections import Counter
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from deployments.model_placement import Placement, check_placement
from deployments.own_arguments import refuse_own


class Replicas(BaseModel):
    """How many engine replicas a model may have."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    min: Annotated[int, Field(ge=0)] = 1
    """Replicas kept even without load."""
    max: Annotated[int, Field(ge=1)] = 1
    """Replicas that load may bring."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min must be <= max, got min {self.min} and max {self.max}")
        return self


def _number_or_auto(given: object) -> object:
    # Before the two alternatives, each of which would complain for itself.
    if given != "auto" and (not isinstance(given, int) or isinstance(given, bool) or given < 1):
        raise ValueError(f"should be a whole number above 0, or auto, got {given!r}")
    return given


def _or_none(given: object) -> object:
    return None if given is None else _number_or_auto(given)


def _theirs_alone(engine: dict[str, Any]) -> dict[str, Any]:
    refuse_own(engine)
    return engine


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=63)]
Source = Annotated[str, Field(min_length=1)]
Parts = Annotated[int, Field(ge=1)]
Arguments = Annotated[dict[str, Any], AfterValidator(_theirs_alone)]


class Variant(BaseModel):
    """A cheaper form of a model, such as what `headrace compress` made of it. It has engines of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: Name
    """What answers, metrics and its engines (`engine-MODEL-NAME`) call it: letters, digits, `.`, `_` and `-`."""
    source: Source
    """An artefact's name, a folder, or a hub id. It must have the model's tokenizer."""
    quality: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the model's own quality, which is 1. null: by the report beside `source`, the model's perplexity over
    the variant's. Of two variants, that of less quality is taken to be the cheaper one."""
    replicas: Replicas = Replicas()
    tensor_parallel: Annotated[Parts | Literal["auto"] | None, BeforeValidator(_or_none)] = None
    """As of the model. null: as many as it has."""
    pipeline_parallel: Parts | None = None
    """As of the model. null: as many as it has."""
    nodes: Parts | None = None
    """As of the model. null: as many as it has."""
    engine: Arguments = {}
    """Engine arguments that differ from the model's."""


class Model(BaseModel):
    """One model that the fleet serves."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: Name
    """What clients write in `model`: letters, digits, `.`, `_` and `-`."""
    source: Source
    """A fetched name (`smollm2`, `tiny`, `minilm`), a folder, or a hub id."""
    tensor_parallel: Annotated[Parts | Literal["auto"], BeforeValidator(_number_or_auto)] = 1
    """Devices over which each layer is split; `auto`: the fewest GPUs of this machine that hold the model."""
    pipeline_parallel: Parts = 1
    """Groups of layers, each on its own devices."""
    nodes: Parts = 1
    """Machines that one replica spans (more than one needs GPUs)."""
    placement: Placement = Placement()
    engine: Arguments = {}
    """Engine arguments, by vLLM's names, passed as they are."""
    replicas: Replicas = Replicas()
    require_reference: bool = False
    """Refuse to serve a checkpoint that has no reference beside it: log-probabilities, or vectors if it pools."""
    variants: list[Variant] = []
    """Cheaper forms that may answer for it: under overload, or where a request prefers cost."""

    @property
    def tensor(self) -> int:
        """`tensor_parallel` as a number. Raises ValueError while it is `auto`."""
        if self.tensor_parallel == "auto":
            raise ValueError(f"{self.name}: tensor_parallel is still auto")
        return self.tensor_parallel

    @property
    def data_parallel(self) -> int:
        """Copies of the engine in one replica: vLLM's own data parallelism."""
        return self.engine.get("data_parallel_size", 1)

    @property
    def ranks(self) -> int:
        """Devices of one replica. Raises ValueError while `tensor_parallel` is `auto`."""
        return self.tensor * self.pipeline_parallel * self.data_parallel

    @property
    def reasons(self) -> bool:
        """Its text is parsed for reasoning."""
        nested = self.engine.get("structured_outputs_config") or {}
        return bool(self.engine.get("reasoning_parser") or nested.get("reasoning_parser"))

    @property
    def engines(self) -> list["Model"]:
        """What each of its engine deployments serves, by its own name: the model itself first, then its variants."""
        itself = self.model_copy(update={"variants": []})
        return [itself, *(itself.model_copy(update=_differences(self, variant)) for variant in self.variants)]

    @property
    def by_quality(self) -> list["Model"]:
        """The same, the best one first. A variant whose quality nobody has read comes last."""
        quality = [1.0, *(variant.quality or 0.0 for variant in self.variants)]
        pairs = sorted(zip(quality, self.engines, strict=True), key=lambda pair: -pair[0])
        return [engine for _, engine in pairs]

    @model_validator(mode="after")
    def _placeable(self) -> Self:
        for engine in self.engines:
            check_placement(
                engine.placement,
                nodes=engine.nodes,
                tensor=engine.tensor_parallel,
                pipeline=engine.pipeline_parallel,
                copies=engine.data_parallel,
            )
        return self

    @field_validator("variants")
    @classmethod
    def _variants_differ(cls, variants: list[Variant]) -> list[Variant]:
        for name, count in Counter(variant.name for variant in variants).most_common(1):
            if count > 1:
                raise ValueError(f"each name may appear once, {name!r} appears {count} times")
        return variants

    @model_validator(mode="after")
    def _variants_are_not_itself(self) -> Self:
        if any(variant.name == self.name for variant in self.variants):
            raise ValueError(f"a variant should not be named as its model, {self.name!r}, which is the best variant")
        return self


def _differences(model: Model, variant: Variant) -> dict[str, Any]:
    split = {"tensor_parallel", "pipeline_parallel", "nodes"}
    return {
        "name": f"{model.name}-{variant.name}",
        "source": variant.source,
        "replicas": variant.replicas,
        "engine": model.engine | variant.engine,
        **{name: value for name in split if (value := getattr(variant, name)) is not None},
    }
