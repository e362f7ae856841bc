"""What does a plan of one model consist of: each of its forms on each device, and what a reader must know?"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from cluster.inventory import machine
from cluster.kv_cache import NotAllocated
from headrace import model_source
from headrace.calibrate import stored
from headrace.failure import Failure
from headrace.model_source import Described
from headrace.plan_answer import Answer, Question, answer
from headrace.plan_asked import Options, Traffic, check_context, traffic
from headrace.plan_devices import Place, places
from headrace.plan_prices import Price, read
from headrace.plan_result import Result
from headrace.plan_training import TrainingRow, batch, rows
from headrace.plan_variants import REMEDIES, Variant, forecast
from headrace.plan_words import memory


def planned(asked: Described, forms: Sequence[Variant], options: Options, notes: Sequence[str] = ()) -> Result:
    """The model in these forms, by the options' devices, load and prices. Raises Failure."""
    here = places(options.gpu, options.devices_per_machine, machine())
    context_tokens = check_context(options.context, asked.model.context_tokens)
    load = traffic(options, context_tokens=context_tokens)
    prices_file, prices = read(options.prices)
    known = {name: price for name, price in prices.devices.items() if name in {place.device.name for place in here}}
    question = Question(
        traffic=load,
        context_tokens=context_tokens,
        calibrations=stored(),
        prices_per_hour={name: price.per_hour for name, price in known.items()},
        remedies=lambda: _remedies(asked),
    )
    answers = _answers(forms, here, question)
    training, words = _training(options, asked, here)
    return Result(
        asked=asked,
        traffic=load,
        context_tokens=context_tokens,
        answers=answers,
        prices_file=prices_file,
        currency=prices.currency,
        prices=known,
        training=training,
        training_words=words,
        notes=(*notes, *_notes(load, context_tokens, answers, known, prices_file)),
    )


def _answers(forms: Sequence[Variant], here: Sequence[Place], question: Question) -> list[Answer]:
    try:
        return [answer(form, place, question) for place in here for form in forms]
    except NotAllocated as error:
        raise Failure(f"no cache can be planned: {error}") from None


def _remedies(asked: Described) -> Iterable[Variant]:
    """The forms of 8 and 4 bits, where the forecast knows the architecture."""
    try:
        return [forecast(asked, scheme) for scheme in REMEDIES]
    except Failure:
        return []


def _training(
    options: Options, asked: Described, here: Sequence[Place]
) -> tuple[dict[str, tuple[TrainingRow, ...]], str]:
    if options.train is None:
        return {}, ""
    teacher = None
    if options.train == "distil":
        teacher = asked if options.teacher is None else model_source.asked("--teacher", options.teacher)
    work = batch(asked.model.context_tokens)
    words = f"AdamW, bfloat16 over float32, {work.sequences} x {work.tokens:,} tokens a device, checkpointed"
    words += f", learning from {teacher.name}" if teacher else ""
    found = {
        place.device.name: rows(asked.model, place.device, batch=work, teacher=teacher and teacher.model)
        for place in here
    }
    return found, words


def _notes(
    load: Traffic, context_tokens: int, answers: Sequence[Answer], prices: dict[str, Price], file: Path
) -> Iterable[str]:
    forms = {one.variant.name: one.variant.note for one in answers if one.variant.note}
    yield from (f"{name}: {note}" for name, note in forms.items())
    if load.longest_tokens is not None and load.longest_tokens > context_tokens:
        yield f"the longest request has {load.longest_tokens:,} tokens: it would be refused at {context_tokens:,}"
    yield from _fit_notes(answers)
    yield from _time_notes(answers)
    if load.rate_per_s is not None:
        yield from _price_notes(prices, {one.device.name for one in answers}, file)


def _fit_notes(answers: Sequence[Answer]) -> Iterable[str]:
    lacking = [one for one in answers if one.replica is None]
    if len(answers) > 1 and lacking:
        each = ", ".join(
            f"{one.device.name} ({one.variant.name}, {memory(one.alone.missing_bytes)} short on one)" for one in lacking
        )
        yield f"does not fit: {each}"


def _time_notes(answers: Sequence[Answer]) -> Iterable[str]:
    unmeasured: dict[str, set[str]] = {}
    for one in answers:
        if one.replica and "calibration" not in one.replica.speeds.origin:
            unmeasured.setdefault(one.replica.speeds.origin, set()).add(one.device.name)
    for origin, names in unmeasured.items():
        yield f"times by {origin}, not measured ({', '.join(sorted(names))}): `headrace calibrate` measures them there"
    if unmeasured and any(one.model.experts for one in answers):
        yield "routing and the small kernels of experts are not counted: a request alone is slower than said"


def _price_notes(prices: dict[str, Price], devices: set[str], file: Path) -> Iterable[str]:
    if examples := sorted(name for name, price in prices.items() if price.example):
        yield f"the prices of {', '.join(examples)} are examples: write yours into {file}"
    if missing := sorted(devices - set(prices)):
        yield f"no price for {', '.join(missing)}: write it into {file}"
