"""What do a report's figures say in plain words? What got worse is said as plainly as what got better."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from compress.report import Interval, Quality, Report, Speed, Task
from headrace.report_numbers import measured, points, ratio, share, size, times

Verdict = Literal["better", "worse", "same"]
"""same: the 95 % interval includes no change, so no difference is shown."""
WHAT = {"prefill": "Prefill", "decode": "Decode", "first_token": "First token"}
EXECUTORS = {"transformers": "transformers", "vllm": "vLLM"}
NO_DIFFERENCE = "no difference shown"


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that was compared, and how it came out."""

    verdict: Verdict
    subject: str
    change: str
    """From parent to artefact, with ratio or difference."""


def headline(report: Report) -> str:
    """Bytes, perplexity and speed against the parent, in sentences."""
    quality = leading_quality(report)
    perplexity = _perplexity(quality) if quality else "perplexity was not measured"
    sentences = [f"{_bytes(report)}, {perplexity}"]
    for what, title in WHAT.items():
        phrases = [_speed(speed) for speed in speeds(report) if speed.what == what]
        sentences += [f"{title}: {', '.join(phrases)}"] if phrases else []
    return ". ".join(sentences) + "."


def claims(report: Report) -> list[Claim]:
    """Everything that was compared, in the order of the report."""
    return [
        *_size_claims(report),
        *(claim for quality in report.quality for claim in _quality_claims(quality)),
        *map(_speed_claim, speeds(report)),
        *(_task_claim(task) for task in report.tasks if task.above_chance),
    ]


def notices(report: Report) -> list[str]:
    """What a user must know first: doubts about every figure, then the report's own labels."""
    found = [] if gate_holds(report) else ["vLLM does not compute what the compressor computed: see the gate."]
    rounded = report.lineage.parent_quantized
    if rounded is not None and not any(rounded in label for label in report.labels):
        found.append(f"The parent's weights were rounded before, {rounded}: losses are relative to that.")
    return [*found, *report.labels]


def gate_holds(report: Report) -> bool:
    """Whether both figures of the gate keep to their limits."""
    gate = report.gate
    return gate.kl <= gate.kl_limit and gate.top1 >= gate.top1_limit


def speeds(report: Report) -> list[Speed]:
    """In the order of WHAT, small batches first."""
    return sorted(report.speed, key=lambda speed: (list(WHAT).index(speed.what), speed.batch))


def leading_quality(report: Report) -> Quality | None:
    """The engine's figures, for it is what serves; else the compressor's own."""
    by_executor = {quality.executor: quality for quality in report.quality}
    return by_executor.get("vllm") or by_executor.get("transformers")


def verdict(interval: Interval, *, neutral: float = 1.0, more_is_better: bool = True) -> Verdict:
    """How a ratio or a difference came out."""
    if not interval.excludes(neutral):
        return "same"
    return "better" if (interval.low > neutral) == more_is_better else "worse"


def speed_verdict(speed: Speed) -> Verdict:
    """How a speed came out: seconds should be fewer, tokens/s more."""
    return verdict(speed.ratio, more_is_better=speed.unit == "tokens/s")


def speed_subject(speed: Speed) -> str:
    """What was timed, such as `Decode, batch 8`."""
    return f"{WHAT[speed.what]}, batch {speed.batch}"


def _bytes(report: Report) -> str:
    size = report.size
    if size.bytes == size.parent_bytes:
        return "As many bytes as its parent"
    return f"{times(size.bytes / size.parent_bytes)} the bytes" + (
        ", which is more" if size.bytes > size.parent_bytes else ""
    )


def _perplexity(quality: Quality) -> str:
    written = ratio(quality.ratio)
    match verdict(quality.ratio, more_is_better=False):
        case "same":
            return f"{NO_DIFFERENCE} in perplexity ({written.span})"
        case "worse":
            return f"{written.value} the perplexity ({written.span}), which is worse"
        case "better":
            return f"{written.value} the perplexity ({written.span}), which is better"


def _speed(speed: Speed) -> str:
    outcome, written, batch = speed_verdict(speed), ratio(speed.ratio), f"at batch {speed.batch}"
    if outcome == "same":
        return f"{NO_DIFFERENCE} {batch} ({written.span})"
    only = "only " if outcome == "worse" else ""
    if speed.unit == "tokens/s":
        return f"{only}{written.value} as fast {batch} ({written.span})"
    return f"{only}after {written.value} the time {batch} ({written.span})"


def _size_claims(report: Report) -> Iterator[Claim]:
    sizes = report.size
    yield _exact("Bytes on disk", sizes.parent_bytes, sizes.bytes)
    yield _exact("KV cache per token", sizes.parent_kv_bytes_per_token, sizes.kv_bytes_per_token)


def _exact(subject: str, parent: int, artefact: int) -> Claim:
    if parent == artefact:
        return Claim("same", subject, f"{size(parent)}, unchanged")
    change = f"{size(parent)} → {size(artefact)}, {times(artefact / parent)}"
    return Claim("better" if artefact < parent else "worse", subject, change)


def _quality_claims(quality: Quality) -> Iterator[Claim]:
    where = EXECUTORS[quality.executor]
    change = _from_to(quality.parent_perplexity, quality.perplexity)
    outcome = verdict(quality.ratio, more_is_better=False)
    yield Claim(outcome, f"Perplexity in {where}", f"{change}, {ratio(quality.ratio)}")
    agreement = f"same as the parent's for {share(quality.top1)} of tokens"
    yield Claim(verdict(quality.top1), f"Likeliest next token in {where}", agreement)


def _speed_claim(speed: Speed) -> Claim:
    change = f"{_from_to(speed.parent, speed.artefact)} {speed.unit}, {ratio(speed.ratio)}"
    return Claim(speed_verdict(speed), speed_subject(speed), change)


def _task_claim(task: Task) -> Claim:
    change = f"{share(task.parent).value} → {share(task.artefact).value}, {points(task.difference)}"
    return Claim(verdict(task.difference, neutral=0.0), f"Task {task.name}", change)


def _from_to(parent: Interval, artefact: Interval) -> str:
    return f"{measured(parent).value} → {measured(artefact).value}"
