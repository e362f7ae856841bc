"""How good is each variant of a fleet, where the file does not say?"""

from pathlib import Path

from deployments.fleet import Fleet
from deployments.served_model import Model, Variant
from headrace.failure import Failure, bad_input
from headrace.steps import Steps


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
    # Here, since a fleet without variants has no use for it.
    from compress.report import load
    from headrace.report_words import EXECUTORS, leading_quality

    try:
        measured = leading_quality(load(folder))
    except ValueError as error:
        raise bad_input(f"{_called(model, variant)}: quality: is missing, and so is a report: {error}") from None
    if measured is None:
        raise Failure(f"{_called(model, variant)}: quality: is missing, and its report tells no perplexity")
    quality, (low, high) = _share(measured.ratio.value), map(_share, (measured.ratio.high, measured.ratio.low))
    steps.say(
        f"✓ {_called(model, variant)} has quality {quality:.3f} ({low:.3f} to {high:.3f}): its parent's perplexity "
        f"over its own in {EXECUTORS[measured.executor]}"
    )
    return variant.model_copy(update={"quality": quality})


def _share(ratio: float) -> float:
    """Quality by a ratio of perplexities, artefact over parent: no variant counts as better than its model."""
    return min(1.0, 1 / ratio)


def _called(model: Model, variant: Variant) -> str:
    return f"{model.name}-{variant.name}"
