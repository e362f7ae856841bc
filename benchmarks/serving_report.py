"""What do the turns of a serving comparison add up to?"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.cpu_time import PATH, Part
from benchmarks.streaming_client import Seen

OURS, THEIRS = "headrace", "vllm"


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One server under load once."""

    server: str
    number: int
    streams: int
    seen: Seen
    window_s: float
    """Seconds over which CPU time was read."""
    cpu_s: dict[str, float]
    """By part."""
    idle_server_cores: float
    """Cores that the server without load used meanwhile."""
    others_cores: float
    """Cores that processes outside the comparison used meanwhile."""

    @property
    def events_per_token(self) -> float:
        """1 when every token came as an event of its own."""
        return self.seen.content_events / self.seen.tokens

    def us_per_token(self, parts: Iterable[Part]) -> float:
        """CPU microseconds of these parts for each output token."""
        return sum(self.cpu_s.get(part, 0.0) for part in parts) / self.seen.tokens * 1e6


Value = Callable[[Turn], float]

RATIOS: dict[str, Value] = {
    "path_us_per_token": lambda turn: turn.us_per_token(PATH),
    "path_and_core_us_per_token": lambda turn: turn.us_per_token({*PATH, Part.CORE}),
    "ttft_p50_ms": lambda turn: turn.seen.ttft_p50_s * 1e3,
    "ttft_p95_ms": lambda turn: turn.seen.ttft_p95_s * 1e3,
    "per_token_p50_ms": lambda turn: turn.seen.per_token_p50_s * 1e3,
    "tokens_per_s": lambda turn: turn.seen.tokens / turn.seen.wall_s,
}
"""Values of which ours / vLLM's is told, from the turns of the same round."""

VALUES: dict[str, Value] = RATIOS | {
    "router_us_per_token": lambda turn: turn.us_per_token({Part.ROUTER}),
    "engine_replica_us_per_token": lambda turn: turn.us_per_token({Part.ENGINE}),
    "engine_core_us_per_token": lambda turn: turn.us_per_token({Part.CORE}),
    "ray_us_per_token": lambda turn: turn.us_per_token({Part.RAY}),
    "events_per_token": lambda turn: turn.events_per_token,
    "idle_server_cores": lambda turn: turn.idle_server_cores,
    "others_cores": lambda turn: turn.others_cores,
}

COLUMNS = {
    "path_us_per_token": "path us/token",
    "router_us_per_token": "router",
    "engine_replica_us_per_token": "engine replica",
    "engine_core_us_per_token": "engine core",
    "ray_us_per_token": "Ray",
    "ttft_p50_ms": "TTFT p50 ms",
    "ttft_p95_ms": "TTFT p95 ms",
    "per_token_p50_ms": "ms per token p50",
    "tokens_per_s": "tokens/s",
    "others_cores": "cores others used",
}


def summarise(turns: Sequence[Turn]) -> dict[str, Any]:
    """By number of streams: each value of each server, and the ratios; every one as median, min and max."""
    widths = sorted({turn.streams for turn in turns})
    return {str(width): _summary([turn for turn in turns if turn.streams == width]) for width in widths}


def table(result: dict[str, Any]) -> str:
    """The summary as Markdown: median (min-max over rounds)."""
    lines = ["| streams | server | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for width, summary in result["summary"].items():
        for server in (THEIRS, OURS, "ratio"):
            cells = [_cell(summary[server].get(name), server == "ratio") for name in COLUMNS]
            lines.append(f"| {width} | {server} | " + " | ".join(cells) + " |")
    idle = "; ".join(
        f"{server}: " + ", ".join(f"{part} {cores * 1e3:.0f}" for part, cores in parts.items())
        for server, parts in result["idle_cores"].items()
    )
    return "\n".join([*lines, "", f"Idle, thousandths of a core: {idle}"])


def _summary(turns: Sequence[Turn]) -> dict[str, Any]:
    ours = [turn for turn in turns if turn.server == OURS]
    theirs = [turn for turn in turns if turn.server == THEIRS]
    return {
        OURS: {name: _spread([value(turn) for turn in ours]) for name, value in VALUES.items()},
        THEIRS: {name: _spread([value(turn) for turn in theirs]) for name, value in VALUES.items()},
        "ratio": {
            name: _spread([value(our) / value(their) for our, their in zip(ours, theirs, strict=True)])
            for name, value in RATIOS.items()
        },
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _cell(spread: dict[str, float] | None, ratio: bool) -> str:
    if spread is None or not any(spread.values()):
        return ""
    digits = 2 if ratio else 1 if spread["median"] < 20 else 0
    return "{median:.{d}f} ({min:.{d}f}-{max:.{d}f})".format(d=digits, **spread)
