"""What do the forms of a fleet's model carry, and how good are they? In words."""

from collections.abc import Iterable, Iterator, Sequence
from math import floor, isfinite

from headrace import plan_words
from headrace.plan_answer import Answer
from headrace.plan_result import Result
from headrace.plan_variants import Served
from headrace.plan_words import Line, number

QUALITY = "share of the model's own, as `serve` reads it"


def all_lines(answer: Answer, result: Result) -> list[Line]:
    """Everything that is told of one form on one device, in order."""
    served = answer.variant.served
    return [*plan_words.lines(answer, result), *(_lines(answer, served) if served else ())]


def _lines(answer: Answer, served: Served) -> Iterator[Line]:
    if answer.most_per_s is not None:
        most = served.most_replicas
        each, together = f"{number(answer.most_per_s)}/s", f"{number(most * answer.most_per_s)}/s"
        text = f"a replica at most {each} within the promises"
        yield Line(title="Carries", text=text if most == 1 else f"{text}, the {most} of the file {together}")
    yield Line(title="Quality", text=f"{served.share}: {served.share.origin}")


def short_quality(served: Served) -> str:
    """For a narrow column."""
    found = served.share
    spread = "" if found.low == found.high else f" ({found.low:.2f}-{found.high:.2f})"
    return f"{found.value:.3g}{spread}" if found.value == 1 else f"{found.value:.3f}{spread}"


def carried(result: Result) -> Iterator[str]:
    """Of a model with variants, a line or two for each device: what its replicas carry without and with them."""
    devices = dict.fromkeys(answer.device.name for answer in result.answers)
    for device in devices:
        itself, *others = [answer for answer in result.answers if answer.device.name == device]
        if others and itself.most_per_s is not None:
            yield from _with_the_files_replicas(itself, others)
            yield from _on_as_many_devices(itself, others, result)


def _with_the_files_replicas(itself: Answer, others: Sequence[Answer]) -> Iterable[str]:
    alone, together = _all_per_s([itself]), _all_per_s([itself, *others])
    yield (
        f"{itself.device.name}: all replicas that the file allows carry {number(alone)}/s of {itself.variant.name} "
        f"alone, {number(together)}/s with its variants"
    )


def _on_as_many_devices(itself: Answer, others: Sequence[Answer], result: Result) -> Iterable[str]:
    """What each form would carry on the devices that the model takes for the rate that was asked."""
    if itself.replica is None or not isfinite(itself.replica.all_devices):
        return
    count = int(itself.replica.all_devices)
    told = ", ".join(f"{answer.variant.name} {number(_per_s_on(answer, count))}/s" for answer in (itself, *others))
    yield f"on as many devices as {itself.variant.name} takes for {result.traffic.rate_per_s:.4g}/s ({count:,}): {told}"


def _all_per_s(answers: Sequence[Answer]) -> float:
    return sum(
        answer.variant.served.most_replicas * (answer.most_per_s or 0.0) for answer in answers if answer.variant.served
    )


def _per_s_on(answer: Answer, devices: int) -> float:
    if answer.replica is None:
        return 0.0
    return floor(devices / answer.replica.devices) * (answer.most_per_s or 0.0)
