"""Which requests does a recorded trace hold, and when did they come?"""

import csv
import gzip
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite, log2
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLUMNS = {
    ("TIMESTAMP", "ContextTokens", "GeneratedTokens"): "Azure",
    ("arrival_s", "prompt_tokens", "output_tokens"): "plain",
    ("t_s", "input_tokens", "output_tokens"): "plain",
}
"""Heads of the CSV files that are read."""
KEYS = ("timestamp", "input_length", "output_length")
"""Of the lines of a Mooncake trace; its times are in milliseconds."""
JITTER_S = 5.0
"""By which copies of a request come earlier or later, one standard deviation."""


class BadTrace(ValueError):
    """A file that holds no trace; its text names the line, what it was and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Requests in order of arrival, the first at 0."""

    at_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    prefixes: Sequence[tuple[int, ...]] = ()
    """The blocks of each prompt, from its begin on: equal ones are the same tokens after the same ones. Or none."""
    block_tokens: int = 0
    """Of such a block."""

    @property
    def requests(self) -> int:
        return len(self.at_s)

    @property
    def span_s(self) -> float:
        """From the first arrival to the last."""
        return float(self.at_s[-1])

    def fitting(self, most_tokens: int) -> "Trace":
        """Those whose prompt and answer have at most so many tokens together: engines refuse the others."""
        chosen = np.flatnonzero(self.prompt_tokens.astype(np.int64) + self.output_tokens <= most_tokens)
        return self if len(chosen) == self.requests else self.taken(chosen, self.at_s[chosen])

    def taken(self, chosen: NDArray[Any], at_s: NDArray[np.float64], copies: NDArray[Any] | None = None) -> "Trace":
        """Requests by their places, at other times. Copies of a request share prefixes with their like only."""
        order = np.argsort(at_s, kind="stable")
        chosen, at_s = chosen[order], at_s[order]
        prefixes: list[tuple[int, ...]] = []
        if self.prefixes:
            numbers = [0] * len(chosen) if copies is None else copies[order].tolist()
            apart = 1 + max(max(prefix, default=0) for prefix in self.prefixes)
            for place, copy in zip(chosen.tolist(), numbers, strict=True):
                prefixes.append(tuple([block + apart * copy for block in self.prefixes[place]]))
        return Trace(
            at_s=at_s - at_s[0],
            prompt_tokens=self.prompt_tokens[chosen],
            output_tokens=self.output_tokens[chosen],
            prefixes=prefixes,
            block_tokens=self.block_tokens,
        )


MOST_REQUESTS = 10_000_000
"""Of a trace that is repeated."""


def read(path: Path) -> Trace:
    """CSV (`TIMESTAMP,ContextTokens,GeneratedTokens`, `arrival_s,prompt_tokens,output_tokens` or
    `t_s,input_tokens,output_tokens`) or JSONL (`timestamp` in ms, `input_length`, `output_length`, perhaps `hash_ids`),
    also as .gz. Prompts and answers have a token at least. Raises BadTrace.
    """
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    try:
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
            return _trace(_lines(file) if plain.suffix == ".jsonl" else _rows(file))
    except (OSError, EOFError) as error:
        raise BadTrace((getattr(error, "strerror", None) or str(error)).lower()) from None
    except UnicodeDecodeError:
        raise BadTrace("is not text in UTF-8") from None


def tiled(trace: Trace, *, least_s: float) -> Trace:
    """The trace again and again until it lasts for `least_s`; the next begins a mean pause after the last arrival.

    Raises BadTrace where that makes more than MOST_REQUESTS.
    """
    pause_s = trace.span_s / max(1, trace.requests - 1) or 1.0
    if least_s / (trace.span_s + pause_s) * trace.requests > MOST_REQUESTS:
        raise BadTrace(
            f"lasts {trace.span_s:.3g} s: repeated for {least_s:g} s it has more than {MOST_REQUESTS:,} requests"
        )
    times = max(1, -int(-least_s // (trace.span_s + pause_s)))
    copies = np.repeat(np.arange(times), trace.requests)
    at_s = np.tile(trace.at_s, times) + copies * (trace.span_s + pause_s)
    return trace.taken(np.tile(np.arange(trace.requests), times), at_s, copies)


def scaled(trace: Trace, factor: float, *, seed: int) -> Trace:
    """`factor` times as many requests, over the same time: each again and again, copies earlier or later by chance.

    Fewer than one: each is kept with that chance. The trace's own form over minutes stays.
    """
    source = np.random.default_rng(seed)
    counts = int(factor) + (source.random(trace.requests) < factor % 1)
    if not counts.any():
        counts[0] = 1
    chosen = np.repeat(np.arange(trace.requests), counts)
    copies = np.arange(len(chosen)) - np.repeat(np.cumsum(counts) - counts, counts)
    moved = np.where(copies > 0, source.normal(0.0, JITTER_S, len(chosen)), 0.0)
    at_s = np.clip(trace.at_s[chosen] + moved, 0.0, trace.span_s)
    return trace.taken(chosen, at_s, copies)


Row = tuple[float, int, int, tuple[int, ...]]


def _trace(rows: Iterable[Row]) -> Trace:
    """Numbers are kept as such while they come: a million rows as tuples would take a fifth of a GB."""
    at, prompts, outputs, blocks = array("d"), array("i"), array("i"), list[tuple[int, ...]]()
    for at_s, prompt_tokens, output_tokens, prefix in rows:
        at.append(at_s)
        try:
            prompts.append(max(1, prompt_tokens))
            outputs.append(max(1, output_tokens))
        except OverflowError:
            raise BadTrace(f"request {len(at)}: has more than 2^31 tokens") from None
        if prefix or blocks:
            blocks += [()] * (len(at) - 1 - len(blocks))
            blocks.append(prefix)
    if len(at) < 2:
        raise BadTrace(f"should have at least 2 requests, got {len(at)}")
    at_s = np.array(at)
    order = np.argsort(at_s, kind="stable")
    return Trace(
        at_s=at_s[order] - at_s[order[0]],
        prompt_tokens=np.array(prompts, dtype=np.int32)[order],
        output_tokens=np.array(outputs, dtype=np.int32)[order],
        prefixes=[blocks[place] for place in order.tolist()] if blocks else [],
        block_tokens=_block_tokens(prompts, blocks) if blocks else 0,
    )


def _block_tokens(prompts: Sequence[int], blocks: Sequence[tuple[int, ...]]) -> int:
    """A power of 2, by the longest prompt: traces do not say it."""
    place = max(range(len(blocks)), key=lambda place: len(blocks[place]))
    return 2 ** round(log2(prompts[place] / len(blocks[place])))


def _lines(file: Any) -> Iterator[Row]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError:
            raise BadTrace(f"line {number}: is no JSON") from None
        if not isinstance(values, dict):
            raise BadTrace(f"line {number}: should be an object with {', '.join(KEYS)}")
        at, prompt, output = (_number(number, name, values.get(name)) for name in KEYS)
        blocks = values.get("hash_ids", [])
        if not isinstance(blocks, list) or not all(type(block) is int for block in blocks):
            raise BadTrace(f"line {number}: hash_ids: should be a list of whole numbers")
        yield at / 1000, int(prompt), int(output), tuple(blocks)


def _rows(file: Any) -> Iterator[Row]:
    rows = csv.reader(file)
    head = next(rows, [])
    names = next((names for names in COLUMNS if set(names) <= set(head)), None)
    if names is None:
        known = " or ".join(",".join(names) for names in COLUMNS)
        raise BadTrace(f"should have the columns {known}, got {','.join(head) or 'none'}")
    places = dict(zip(names, map(head.index, names), strict=True))
    for number, row in enumerate(rows, start=2):
        if row:
            at, prompt, output = (_field(number, name, row, place) for name, place in places.items())
            yield at, int(prompt), int(output), ()


def _field(line: int, name: str, row: Sequence[str], place: int) -> float:
    return _number(line, name, row[place] if place < len(row) else None)


def _number(line: int, name: str, given: Any) -> float:
    """A count or a time; a date is one in seconds."""
    try:
        number = float(given)
    except (TypeError, ValueError):
        number = _date_s(str(given)) if name == "TIMESTAMP" else float("nan")
    if not isfinite(number) or number < 0:
        what = "a date" if name == "TIMESTAMP" else "a number from 0 on"
        raise BadTrace(f"line {line}: {name}: should be {what}, got {given!r}")
    return number


def _date_s(text: str) -> float:
    try:
        # Azure's fractions have seven digits; Python reads six and drops the rest.
        moment = datetime.fromisoformat(text)
    except ValueError:
        return float("nan")
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
