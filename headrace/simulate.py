"""What does `headrace simulate` do: read fleet and trace, play them under each policy, show what came of it?"""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from headrace import simulate_case
from headrace.plan_prices import Price, read
from headrace.simulate_asked import Asked, Options, check
from headrace.simulate_case import Case
from headrace.simulate_runs import Job, run
from simulation.outcome import Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Played:
    """One policy's run with one seed."""

    asked: Asked
    seed: int
    digest: Digest
    cost: float | None
    """Of all devices; None without a price."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """All that is printed, written as JSON, or drawn."""

    case: Case
    trace: str
    requests: int
    span_s: float
    prompt_tokens: float
    """In the mean, as the other."""
    output_tokens: float
    price: Price | None
    currency: str
    runs: tuple[Played, ...]
    notes: tuple[str, ...]


def command(options: Options, *, as_json: bool, html: str | None) -> None:
    """Prints what came of it, and writes its page where one was asked for. Raises Failure."""
    result = simulated(options, Console(stderr=True, highlight=False))
    if as_json:
        from headrace.simulate_json import to_json

        print(to_json(result))
    else:
        from headrace.simulate_table import show

        show(result, Console(highlight=False))
    if html:
        from headrace.pages import write_page
        from headrace.simulate_page import page

        written = write_page(page(result), Path(html).expanduser())
        Console(stderr=True, highlight=False).print(f"page: {written}", markup=False, soft_wrap=True)


def simulated(options: Options, console: Console) -> Result:
    """Every policy with every seed. Raises Failure."""
    policies = check(options)
    case = simulate_case.case(options)
    _, prices = read(options.prices)
    price = prices.devices.get(case.place.device.name)
    traces = {seed: simulate_case.trace(options, case, seed=seed) for seed in range(options.seeds)}
    jobs = [
        Job(
            asked=asked,
            seed=seed,
            trace=trace,
            setup=case.setup,
            targets=case.targets,
            variants=case.variants,
        )
        for asked in policies
        for seed, (trace, _) in traces.items()
    ]
    first, notes = traces[0]
    return Result(
        case=case,
        trace=options.trace,
        requests=first.requests,
        span_s=first.span_s,
        prompt_tokens=float(first.prompt_tokens.mean()),
        output_tokens=float(first.output_tokens.mean()),
        price=price,
        currency=prices.currency,
        runs=tuple(
            Played(
                asked=job.asked,
                seed=job.seed,
                digest=digest,
                cost=price and digest.summary.device_hours * price.per_hour,
            )
            for job, digest in zip(jobs, run(jobs, console), strict=True)
        ),
        notes=(*case.notes, *notes, *_price_notes(price, case)),
    )


def _price_notes(price: Price | None, case: Case) -> list[str]:
    if price is None:
        return [f"no price for {case.place.device.name}: --prices FILE names one"]
    return [f"the price of {case.place.device.name} is an example: write yours with --prices"] if price.example else []
