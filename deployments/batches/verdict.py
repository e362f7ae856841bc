"""Is what came of a batch's line its answer, its error, or a reason to ask again, and when?"""

from dataclasses import dataclass

import msgspec

from deployments.in_process import Answer

PAUSE_S = 1.0
"""Where nobody says how long to wait."""
MOST_PAUSE_S = 60.0
"""Longer than this no batch stands still: what is told changes meanwhile."""
TRIES = 5
"""Of a line whose engine fails or is lost with it, each of which the router has tried again itself: it may be the line
that does it."""


@dataclass(frozen=True, slots=True)
class Again:
    """Worth asking once more."""

    in_s: float
    everything: bool
    """The batch's other lines would be told the same."""


def again(answer: Answer, *, failures: int, left_s: float) -> Again | None:
    """When to ask again after an answer; None: it is final. `failures`: of the line's engines, with this one.

    `left_s`: of the batch's window, beyond which no time that is told lies.
    """
    if answer.status == 429:
        if (told_s := _retry_after_s(answer)) is None or told_s > left_s:
            return None  # its tenant's limits never let it in, or not in time
        return Again(min(told_s, MOST_PAUSE_S), everything=True)
    if answer.status < 500:
        return None
    if not failed_with_engine(answer):
        return Again(min(_retry_after_s(answer) or PAUSE_S, MOST_PAUSE_S), everything=True)
    return None if failures >= TRIES else Again(PAUSE_S * 2 ** (failures - 1), everything=False)


def failed_with_engine(answer: Answer) -> bool:
    """Whether it may be the line that its engine failed for. A router that refuses says when to come again."""
    return answer.status >= 500 and "retry-after" not in answer.headers


def tokens(body: bytes) -> tuple[int, int, int]:
    """Of the input, of these the cached ones, and of the output, as an answer tells them."""
    try:
        usage = msgspec.json.decode(body, type=_Answered).usage
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0, 0, 0
    if usage is None:
        return 0, 0, 0
    details = usage.prompt_tokens_details or usage.input_tokens_details
    cached = (details.cached_tokens if details is not None else 0) or 0
    return usage.prompt_tokens or usage.input_tokens, cached, (usage.completion_tokens or usage.output_tokens) or 0


def _retry_after_s(answer: Answer) -> float | None:
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else None


class _Details(msgspec.Struct):
    cached_tokens: int | None = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    input_tokens: int = 0
    output_tokens: int | None = 0
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None


class _Answered(msgspec.Struct):
    usage: _Usage | None = None
