"""What load does a recorded trace hold? Mean lengths, and the rate of its fullest minute."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

from headrace.failure import bad_input

MINUTE_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """One request of a trace."""

    at_s: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What a trace asks of a model."""

    requests: int
    span_s: float
    """From the first arrival to the last."""
    prompt_tokens: int
    """In the mean, as all lengths here; at least 1."""
    output_tokens: int
    longest_tokens: int
    """Prompt and answer together, of the longest request."""
    mean_rate_per_s: float
    peak_rate_per_s: float
    """Of the 60 s in which most requests came; of the whole trace where it is shorter."""


COLUMNS = {
    ("TIMESTAMP", "ContextTokens", "GeneratedTokens"): "Azure",
    ("arrival_s", "prompt_tokens", "output_tokens"): "plain",
}
"""Heads of the CSV files that are read."""
KEYS = ("timestamp", "input_length", "output_length")
"""Of the lines of a Mooncake trace; its times are in milliseconds."""


def read(path: Path) -> Load:
    """The load of a trace: CSV (`TIMESTAMP,ContextTokens,GeneratedTokens` or `arrival_s,prompt_tokens,output_tokens`)
    or JSONL (`timestamp` in ms, `input_length`, `output_length`). Raises Failure.
    """
    try:
        with path.open(newline="") as file:
            found = list(_lines(path, file) if path.suffix == ".jsonl" else _rows(path, file))
    except OSError as error:
        raise bad_input(f"--trace: {path}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise bad_input(f"--trace: {path}: is not text in UTF-8") from None
    if len(found) < 2:
        raise bad_input(f"--trace: {path}: should have at least 2 requests, got {len(found)}")
    return load(found)


def load(arrivals: list[Arrival]) -> Load:
    """The load of at least two requests. Raises Failure where all came at the same time."""
    times = sorted(arrival.at_s for arrival in arrivals)
    span_s, count = times[-1] - times[0], len(arrivals)
    if span_s <= 0:
        raise bad_input("--trace: all requests came at the same time: no rate follows from it")
    return Load(
        requests=count,
        span_s=span_s,
        prompt_tokens=max(1, round(sum(arrival.prompt_tokens for arrival in arrivals) / count)),
        output_tokens=max(1, round(sum(arrival.output_tokens for arrival in arrivals) / count)),
        longest_tokens=max(arrival.prompt_tokens + arrival.output_tokens for arrival in arrivals),
        mean_rate_per_s=count / span_s,
        peak_rate_per_s=_most_within(times, MINUTE_S) / min(MINUTE_S, span_s),
    )


def _most_within(times: list[float], window_s: float) -> int:
    """The most arrivals in any window; `times` in order."""
    most, first = 0, 0
    for last, time_s in enumerate(times):
        while time_s - times[first] >= window_s:
            first += 1
        most = max(most, last - first + 1)
    return most


def _lines(path: Path, file: Any) -> Iterator[Arrival]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError:
            raise bad_input(f"--trace: {path}: line {number}: is no JSON") from None
        if not isinstance(values, dict):
            raise bad_input(f"--trace: {path}: line {number}: should be an object with {', '.join(KEYS)}")
        yield _arrival(path, number, values, KEYS, 1000.0)


def _rows(path: Path, file: Any) -> Iterator[Arrival]:
    rows = csv.DictReader(file)
    head = tuple(rows.fieldnames or ())
    names = next((names for names in COLUMNS if set(names) <= set(head)), None)
    if names is None:
        known = " or ".join(",".join(names) for names in COLUMNS)
        raise bad_input(f"--trace: {path}: should have the columns {known}, got {','.join(head) or 'none'}")
    for number, row in enumerate(rows, start=2):
        yield _arrival(path, number, row, names, 1.0)


def _arrival(path: Path, line: int, values: Mapping[str, Any], names: tuple[str, ...], per_second: float) -> Arrival:
    when, prompt, output = names
    return Arrival(
        at_s=_number(path, line, when, values) / per_second,
        prompt_tokens=int(_number(path, line, prompt, values)),
        output_tokens=int(_number(path, line, output, values)),
    )


def _number(path: Path, line: int, name: str, values: Mapping[str, Any]) -> float:
    """A count or a time; a date is one in seconds."""
    given = values.get(name)
    try:
        number = float(given)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        number = _date_s(str(given)) if name == "TIMESTAMP" else float("nan")
    if not isfinite(number) or number < 0:
        what = "a date" if name == "TIMESTAMP" else "a number from 0 on"
        raise bad_input(f"--trace: {path}: line {line}: {name}: should be {what}, got {given!r}")
    return number


def _date_s(text: str) -> float:
    try:
        # Azure's fractions have seven digits; Python reads six and drops the rest.
        moment = datetime.fromisoformat(text)
    except ValueError:
        return float("nan")
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
