"""What does `headrace plan fleet.yaml` ask: which models in which forms, by which promises?"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.step_time import Layout
from deployments.declare import engines_at_most
from deployments.file_errors import FileError
from deployments.fleet import Fleet, load
from deployments.served_model import Model
from headrace import model_source
from headrace.engine_settings import not_followed
from headrace.failure import bad_input
from headrace.plan_asked import Options, check
from headrace.plan_model import planned
from headrace.plan_result import Result
from headrace.plan_variants import Served, Variant, arithmetic
from headrace.variant_quality import Share, report_folder, share

FILES = (".yaml", ".yml")
"""What such a word ends with means a fleet file; all else is a model."""
ITSELF = Share(value=1.0, low=1.0, high=1.0, origin="the model itself")


def plans(options: Options) -> list[Result]:
    """Of each model of the file, or of the one that is named. Raises Failure."""
    _check_kind(options)
    check(options)
    try:
        fleet = load(Path(options.source).expanduser())
    except FileError as error:
        raise bad_input(str(error)) from None
    return [_plan(model, fleet, options) for model in model_source.chosen(fleet, options.model)]


def _check_kind(options: Options) -> None:
    given = (("--variants", options.variants), ("--quantization", options.quantization), ("--train", options.train))
    for name, value in given:
        if value:
            raise bad_input(f"{name}: goes with a MODEL; of a fleet file the model and its variants are planned")


def _plan(model: Model, fleet: Fleet, options: Options) -> Result:
    found = model_source.asked(f"{options.source}: {model.name}", model.source)
    forms = [_form(model.name, found, model.engines[0], ITSELF, options)]
    for variant, engine in zip(model.variants, model.engines[1:], strict=True):
        quality = share(model, variant, report_folder(variant.source))
        other = model_source.asked(f"{options.source}: {engine.name}", variant.source)
        forms.append(_form(variant.name, other, engine, quality, options))
    ignored = sorted({name for engine in model.engines for name in not_followed(engine.engine)})
    notes = [f"the plan does not follow engine.{name}" for name in ignored]
    asked = _with_the_files(options, model, fleet, found.model.context_tokens)
    result = planned(replace(found, name=model.name), forms, asked, [*notes, *_promises(options)])
    return replace(result, notes=(*result.notes, *_shared_cores(result, fleet)))


def _form(name: str, found: model_source.Described, engine: Model, quality: Share, options: Options) -> Variant:
    arguments: dict[str, Any] = engine.engine | ({"max_model_len": options.context} if options.context else {})
    is_open = engine.tensor_parallel == "auto"
    layout = None if is_open else Layout(tensor=engine.tensor, pipeline=engine.pipeline_parallel)
    return Variant(
        name=name,
        model=found.model,
        arithmetic=arithmetic(found.config),
        served=Served(engine=arguments, layout=layout, most_replicas=engine.replicas.max, share=quality),
    )


def _with_the_files(options: Options, model: Model, fleet: Fleet, longest_tokens: int) -> Options:
    """With the file's context, and its promises where a load is given. Raises Failure."""
    context = options.context
    if context is None and isinstance(given := model.engine.get("max_model_len"), int):
        context = given
        if given > longest_tokens:
            raise bad_input(
                f"{options.source}: {model.name}: engine.max_model_len: the model takes at most {longest_tokens:,} "
                f"tokens, got {given:,}"
            )
    changed = replace(options, context=context)
    if options.rate is None and not options.trace:
        return changed
    return replace(changed, ttft=options.ttft or fleet.scaling.ttft_s, tpot=options.tpot or fleet.scaling.token_s)


def _promises(options: Options) -> list[str]:
    if (options.rate is None and not options.trace) or (options.ttft and options.tpot):
        return []
    return [f"promises are those of `scaling` in {options.source}: --ttft and --tpot give others"]


def _shared_cores(result: Result, fleet: Fleet) -> list[str]:
    on_cpu = any(answer.device.capability == "cpu" for answer in result.answers)
    if not on_cpu or engines_at_most(fleet) == 1:
        return []
    return [
        "each replica is planned with all cores of a machine; on one machine `serve` shares them, as `simulate` does"
    ]
