"""What do the turns of a serving comparison add up to? Medians, and ratios to vLLM's own server with intervals."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from benchmarks.cpu_time import PATH, Part
from benchmarks.load_generator import Seen
from benchmarks.serving_turns import Cell, Turn

BASE = "vllm"
"""The system whose figures the others' are divided by."""
CONFIDENCE = 0.9
RESAMPLES = 9999

Value = Callable[[Turn, Seen], float]


def us_per_token(*parts: Part) -> Value:
    """CPU microseconds of these parts for each output token."""
    return lambda turn, seen: sum(turn.cpu_s.get(part, 0.0) for part in parts) / seen.tokens * 1e6


RATIOS: dict[str, Value] = {
    "path_us_per_token": us_per_token(*PATH),
    "path_and_core_us_per_token": us_per_token(*PATH, Part.CORE),
    "ttft_p50_ms": lambda turn, seen: seen.ttft_p50_s * 1e3,
    "ttft_p95_ms": lambda turn, seen: seen.ttft_p95_s * 1e3,
    "gap_p50_ms": lambda turn, seen: seen.gap_p50_s * 1e3,
    "gap_p95_ms": lambda turn, seen: seen.gap_p95_s * 1e3,
    "tokens_per_s": lambda turn, seen: seen.tokens / seen.wall_s,
}
"""Values of which the ratio to the base is told, from turns of the same round."""

VALUES: dict[str, Value] = RATIOS | {
    "api_server_us_per_token": us_per_token(Part.API_SERVER),
    "proxy_us_per_token": us_per_token(Part.PROXY),
    "router_us_per_token": us_per_token(Part.ROUTER),
    "engine_replica_us_per_token": us_per_token(Part.ENGINE),
    "engine_core_us_per_token": us_per_token(Part.CORE),
    "ray_us_per_token": us_per_token(Part.RAY),
    "events_per_token": lambda turn, seen: seen.events_per_token,
    "idle_systems_cores": lambda turn, seen: turn.idle_systems_cores,
    "others_cores": lambda turn, seen: turn.others_cores,
}

COLUMNS = {
    "path_us_per_token": "CPU us/token",
    "ttft_p50_ms": "TTFT ms p50",
    "ttft_p95_ms": "TTFT ms p95",
    "gap_p50_ms": "between tokens ms p50",
    "gap_p95_ms": "between tokens ms p95",
    "tokens_per_s": "tokens/s",
}
PARTS = {
    "api_server_us_per_token": "API server",
    "proxy_us_per_token": "proxy",
    "router_us_per_token": "router",
    "engine_replica_us_per_token": "engine replica",
    "engine_core_us_per_token": "engine core",
    "ray_us_per_token": "Ray beside",
    "others_cores": "cores that others used",
}

Summary = dict[str, Any]


def summarise(turns: Sequence[Turn]) -> list[Summary]:
    """For each cell and system: the median of each value, and its ratio to the base's in the same round."""
    counted = {(turn.cell, turn.system, turn.round): turn for turn in turns if not turn.problem}
    cells, systems = list(dict.fromkeys(turn.cell for turn in turns)), list(dict.fromkeys(t.system for t in turns))
    cells.sort(key=lambda cell: (cell.model, cell.api, cell.streams))
    systems.sort(key=lambda name: (name != BASE, name))
    rows = []
    for cell in cells:
        base = _rounds(counted, cell, BASE)
        for system in systems:
            if own := _rounds(counted, cell, system):
                refused = sum(t.cell == cell and t.system == system and bool(t.problem) for t in turns)
                rows.append(_row(cell, system, own, base) | {"refused_turns": refused})
    return rows


def _rounds(counted: Mapping[tuple[Cell, str, int], Turn], cell: Cell, system: str) -> dict[int, Turn]:
    return {turn.round: turn for key, turn in counted.items() if key[:2] == (cell, system)}


def _row(cell: Cell, system: str, own: Mapping[int, Turn], base: Mapping[int, Turn]) -> Summary:
    both = sorted(own.keys() & base.keys())
    return {
        **{"model": cell.model, "api": cell.api, "streams": cell.streams, "system": system, "rounds": len(own)},
        "median": {name: statistics.median(_of(value, own.values())) for name, value in VALUES.items()},
        "ratio": {
            name: ratio(ours, theirs)
            for name, value in RATIOS.items()
            if all(ours := _of(value, [own[i] for i in both]))
            and all(theirs := _of(value, [base[i] for i in both]))
            and both
        },
    }


def _of(value: Value, turns: Iterable[Turn]) -> list[float]:
    return [value(turn, turn.seen) for turn in turns if turn.seen is not None]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float | None]:
    """The geometric mean of the rounds' ratios, and its 90 % interval by bootstrap over rounds (percentiles).

    One round has no interval.
    """
    logs = np.log(np.asarray(ours) / np.asarray(theirs))
    if len(logs) == 1:
        return {"mean": float(np.exp(logs[0])), "low": None, "high": None}
    found = bootstrap(
        (logs,), np.mean, confidence_level=CONFIDENCE, n_resamples=RESAMPLES, method="percentile", rng=0
    ).confidence_interval
    return {"mean": float(np.exp(logs.mean())), "low": float(np.exp(found.low)), "high": float(np.exp(found.high))}


def table(summary: Sequence[Summary]) -> str:
    """What a user meets, as Markdown: median over rounds, and ratio to vLLM's own server with its interval."""

    def cell(row: Summary, name: str) -> str:
        return _cell(row["median"][name], row["ratio"].get(name), row["system"])

    return _markdown(summary, COLUMNS, cell)


def parts_table(summary: Sequence[Summary]) -> str:
    """Where CPU time goes, as Markdown: median us per output token of each part."""

    def cell(row: Summary, name: str) -> str:
        return _number(row["median"][name]) if row["median"][name] else ""

    return _markdown(summary, PARTS, cell)


def _markdown(summary: Sequence[Summary], columns: Mapping[str, str], cell: Callable[[Summary, str], str]) -> str:
    heads = ["model", "API", "streams", "system", "rounds", *columns.values()]
    rows = [heads, *([*_said(row), *(cell(row, name) for name in columns)] for row in summary)]
    head, *lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|---" * len(heads) + "|", *lines])


def _said(row: Summary) -> list[str]:
    refused = f" ({row['refused_turns']} refused)" if row["refused_turns"] else ""
    return [row["model"], row["api"], str(row["streams"]), row["system"], f"{row['rounds']}{refused}"]


def _cell(median: float, told: Mapping[str, float | None] | None, system: str) -> str:
    if told is None or system == BASE:
        return _number(median)
    between = "" if told["low"] is None else f", {told['low']:.2f}-{told['high']:.2f}"
    return f"{_number(median)} (x{told['mean']:.2f}{between})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 20 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
