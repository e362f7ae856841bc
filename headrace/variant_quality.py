"""How good is each variant of a fleet, where the file does not say?"""

from dataclasses import dataclass
from pathlib import Path

from deployments.fleet import Fleet
from deployments.served_model import Model, Variant
from headrace.failure import Failure, bad_input
from headrace.folders import artefacts_folder
from headrace.steps import Steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A variant's quality as a share of its model's own, which is 1, and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float
    origin: str
    """Where it is from, in words."""

    def __str__(self) -> str:
        spread = "" if self.low == self.high else f" ({self.low:.3f} to {self.high:.3f})"
        return f"{self.value:.3f}{spread}"


def judged(fleet: Fleet, steps: Steps) -> Fleet:
    """The fleet with the quality of each variant: the file's, or its report's. Sources are folders. Raises Failure."""
    models = []
    for model in fleet.models:
        variants = [judge(model, variant, Path(variant.source), steps) for variant in model.variants]
        models.append(model.model_copy(update={"variants": variants}))
    return fleet.model_copy(update={"models": models})


def check_qualities(fleet: Fleet) -> None:
    """Raises Failure for a variant of no quality in a fleet whose reports can't be read here."""
    for model in fleet.models:
        for variant in model.variants:
            if variant.quality is None:
                raise bad_input(f"{_called(model, variant)}: quality: its report is not read here: give a number")


def judge(model: Model, variant: Variant, folder: Path, steps: Steps) -> Variant:
    """The variant with its quality: the file's, or that of the report in its folder. Raises Failure."""
    if variant.quality is not None:
        return variant
    found = share(model, variant, folder)
    steps.say(f"✓ {_called(model, variant)} has quality {found}: {found.origin}")
    return variant.model_copy(update={"quality": found.value})


def share(model: Model, variant: Variant, folder: Path) -> Share:
    """The same as a value, with its bounds and where it is from. Raises Failure."""
    if variant.quality is not None:
        return Share(value=variant.quality, low=variant.quality, high=variant.quality, origin="as the fleet file says")
    # Here, since a fleet without variants has no use for it.
    from compress.report import load
    from headrace.report_words import EXECUTORS, leading_quality

    try:
        measured = leading_quality(load(folder))
    except ValueError as error:
        raise bad_input(f"{_called(model, variant)}: quality: is missing, and so is a report: {error}") from None
    if measured is None:
        raise Failure(f"{_called(model, variant)}: quality: is missing, and its report tells no perplexity")
    ratio = measured.ratio
    return Share(
        value=_share(ratio.value),
        low=_share(ratio.high),
        high=_share(ratio.low),
        origin=f"its parent's perplexity over its own in {EXECUTORS[measured.executor]}",
    )


def report_folder(source: str) -> Path:
    """Where the report of an artefact lies, if it has any: nothing is fetched for it."""
    folder = Path(source).expanduser()
    return folder if folder.is_dir() else artefacts_folder() / source


def _share(ratio: float) -> float:
    """Quality by a ratio of perplexities, artefact over parent: no variant counts as better than its model."""
    return min(1.0, 1 / ratio)


def _called(model: Model, variant: Variant) -> str:
    return f"{model.name}-{variant.name}"
