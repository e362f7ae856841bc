"""Which artefacts are beaten by another one, and which can be compared at all?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from compress.report import Interval, Quality, Report, Speed
from headrace.report_words import leading_quality


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One artefact, or the parent, among those that were judged on the same text."""

    name: str
    kind: Literal["this", "parent", "other"]
    bytes: int
    perplexity: Interval
    decode: dict[int, Interval]
    """By batch: output tokens/s over the parent's, measured in turns. Empty where another machine measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Front:
    """Perplexity against one more figure."""

    batch: int | None
    """Against decode speed over the parent's, at this batch size; None: against bytes."""
    members: tuple[Candidate, ...]
    across: tuple[Interval, ...]
    """The other figure of each member."""

    @property
    def title(self) -> str:
        """What perplexity is set against."""
        return "bytes" if self.batch is None else f"decode at batch {self.batch}"

    @property
    def beaten(self) -> list[bool]:
        """Which members another one dominates, by their values: fewer bytes or more speed are better."""
        sign = 1 if self.batch is None else -1
        return dominated(
            [(sign * x.value, one.perplexity.value) for one, x in zip(self.members, self.across, strict=True)]
        )


def dominated(points: Sequence[Sequence[float]]) -> list[bool]:
    """For each point, whether another is nowhere larger and somewhere smaller: less is better in every coordinate."""
    return [any(_beats(other, point) for other in points) for point in points]


def candidates(report: Report, others: Sequence[Report]) -> list[Candidate]:
    """The parent first, the report's artefact, then what `unlike` has nothing against. Same weights appear once."""
    quality = leading_quality(report)
    if quality is None:
        return []
    parent = Candidate(
        name="parent",
        kind="parent",
        bytes=report.size.parent_bytes,
        perplexity=quality.parent_perplexity,
        decode={batch: Interval(value=1, low=1, high=1) for batch in _decodes(report)},
    )
    found = {report.lineage.weights_hash: _candidate(report, report, quality, "this")}
    for other in others:
        theirs = _quality(other, quality.executor)
        if theirs is not None and unlike(report, other) is None:
            found.setdefault(other.lineage.weights_hash, _candidate(report, other, theirs, "other"))
    return [parent, *found.values()]


def fronts(found: Sequence[Candidate]) -> list[Front]:
    """Against bytes, and against decode speed at each batch size of the report."""
    if not found:
        return []
    sizes = tuple(Interval(value=one.bytes, low=one.bytes, high=one.bytes) for one in found)
    by_speed = []
    for batch in found[0].decode:
        members = tuple(one for one in found if batch in one.decode)
        by_speed.append(Front(batch=batch, members=members, across=tuple(one.decode[batch] for one in members)))
    return [Front(batch=None, members=tuple(found), across=sizes), *by_speed]


def beaten_in(candidate: Candidate, shown: Sequence[Front]) -> list[str]:
    """Titles of the fronts in which another one dominates the candidate."""
    places = [(front.title, *place) for front in shown for place in zip(front.members, front.beaten, strict=True)]
    return [title for title, member, lost in places if member is candidate and lost]


def unlike(report: Report, other: Report) -> str | None:
    """Why another report's perplexity can't be set beside this one's; None: it can."""
    quality = leading_quality(report)
    if other.lineage.parent_hash != report.lineage.parent_hash:
        return "made from another parent"
    if other.lineage.evaluation_hash != report.lineage.evaluation_hash:
        return "judged on other text"
    if quality is None or _quality(other, quality.executor) is None:
        return "perplexity not measured by the same executor"
    return None


def same_machine(report: Report, other: Report) -> bool:
    """Whether both name the same machine. Numbers with a fraction (such as its load) may differ."""
    return _lasting(report) == _lasting(other)


def _lasting(report: Report) -> dict[str, object]:
    return {key: value for key, value in report.lineage.machine.items() if not isinstance(value, float)}


def _beats(other: Sequence[float], point: Sequence[float]) -> bool:
    pairs = list(zip(other, point, strict=True))
    return all(theirs <= mine for theirs, mine in pairs) and any(theirs < mine for theirs, mine in pairs)


def _candidate(report: Report, other: Report, quality: Quality, kind: Literal["this", "other"]) -> Candidate:
    mine, theirs = _decodes(report), _decodes(other)
    alike = [batch for batch in mine if batch in theirs and _same_load(mine[batch], theirs[batch])]
    return Candidate(
        name=other.name,
        kind=kind,
        bytes=other.size.bytes,
        perplexity=quality.perplexity,
        decode={batch: theirs[batch].ratio for batch in alike} if same_machine(report, other) else {},
    )


def _same_load(one: Speed, other: Speed) -> bool:
    return (one.prompt_tokens, one.output_tokens) == (other.prompt_tokens, other.output_tokens)


def _decodes(report: Report) -> dict[int, Speed]:
    return {speed.batch: speed for speed in report.speed if speed.what == "decode"}


def _quality(report: Report, executor: str) -> Quality | None:
    return next((quality for quality in report.quality if quality.executor == executor), None)
