"""How is a simulated run said in words and short numbers?"""

from headrace.simulate import Played, Result


def heading(result: Result) -> str:
    """What was simulated."""
    case = result.case
    return f"{case.model.name} on {case.place.device.name}, {case.fit.layout} a replica"


def asked(result: Result) -> str:
    """The trace and what is promised."""
    targets, minutes = result.case.targets, result.span_s / 60
    return (
        f"{result.trace}: {result.requests:,} requests in {minutes:,.4g} min, "
        f"{result.prompt_tokens:,.0f} tokens in and {result.output_tokens:,.0f} out in the mean; "
        f"first token within {targets.ttft_s:g} s and {1e3 * targets.token_s:g} ms a token "
        f"for {targets.attainment:.4g} of them; {result.case.setup.startup_s:g} s to start a replica"
    )


def name(played: Played, result: Result) -> str:
    """The policy, and its seed where there are several."""
    several = len({run.seed for run in result.runs}) > 1
    return f"{played.asked} #{played.seed}" if several else str(played.asked)


def variants(result: Result) -> list[str]:
    """Who answered, where the model has variants: a line for each run."""
    lines = []
    for played in result.runs:
        served = played.digest.summary.served
        total = sum(one.requests for one in served)
        if total:
            shares = ", ".join(f"{one.requests / total:.1%} by {one.name} ({one.quality:.3g})" for one in served)
            mean = sum(one.requests * one.quality for one in served) / total
            lines.append(f"{name(played, result)}: answered {shares}; quality {mean:.3f} in the mean")
    return lines


def milliseconds(values: dict[str, float], share: str) -> str:
    """A percentile; `-` where nothing was answered."""
    return f"{1e3 * values[share]:,.0f}" if share in values else "-"


def money(cost: float | None) -> str:
    return "-" if cost is None else f"{cost:,.2f}"


COLUMNS = (
    "policy",
    "met",
    "TTFT ms p50",
    "p95",
    "p99",
    "token ms p50",
    "p95",
    "mean",
    "most",
    "device-h",
    "cost",
    "changes",
)


def row(played: Played, result: Result) -> tuple[str, ...]:
    """By COLUMNS."""
    summary = played.digest.summary
    return (
        name(played, result),
        f"{summary.attainment:.2%}",
        *(milliseconds(summary.ttft_s, share) for share in ("p50", "p95", "p99")),
        *(milliseconds(summary.token_s, share) for share in ("p50", "p95")),
        f"{summary.mean_replicas:.2f}",
        f"{summary.most_replicas}",
        f"{summary.device_hours:,.2f}",
        money(played.cost),
        f"{summary.decisions:,}",
    )
