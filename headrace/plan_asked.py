"""What was `headrace plan` asked? The options of the command line, checked once."""

from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Literal, get_args

from cluster.service import Requests
from deployments.file_errors import nearest
from headrace.failure import bad_input
from headrace.plan_traces import Load, read
from headrace.plan_variants import SCHEMES

PROMPT_TOKENS, OUTPUT_TOKENS = 1024, 256
"""Of the requests that are assumed where none were told."""
Training = Literal["distil", "finetune"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """As typed."""

    source: str
    """A model, or a fleet file."""
    model: str | None = None
    """One of a fleet file's."""
    gpu: tuple[str, ...] = ()
    context: int | None = None
    rate: float | None = None
    prompt: int | None = None
    output: int | None = None
    trace: str | None = None
    ttft: float | None = None
    tpot: float | None = None
    quantization: tuple[str, ...] = ()
    variants: str | None = None
    devices_per_machine: int | None = None
    train: str | None = None
    teacher: str | None = None
    prices: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """The requests that are planned for, and how many come."""

    requests: Requests
    rate_per_s: float | None
    ttft_s: float
    """inf: no target, as for the other."""
    token_s: float
    origin: str
    """Where lengths and rate come from, in words."""
    longest_tokens: int | None = None
    """Of a trace's longest request."""


def check(options: Options) -> None:
    """Raises Failure for what makes no sense, whatever the model is."""
    _check_together(options)
    _check_numbers(options)


def traffic(options: Options, *, context_tokens: int) -> Traffic:
    """The load of a model that takes so many tokens. Raises Failure."""
    found = read(Path(options.trace).expanduser()) if options.trace else None
    requests = _requests(options, found, context_tokens)
    if requests.prompt_tokens + requests.output_tokens > context_tokens:
        given = f"{requests.prompt_tokens:,} + {requests.output_tokens:,} tokens"
        option = "--trace" if found else "--in and --out"
        raise bad_input(f"{option}: {given} should be at most the context, {context_tokens:,}")
    return Traffic(
        requests=requests,
        rate_per_s=found.peak_rate_per_s if found else options.rate,
        ttft_s=options.ttft or inf,
        token_s=options.tpot or inf,
        origin=_origin(options, found),
        longest_tokens=found.longest_tokens if found else None,
    )


def check_context(context: int | None, longest: int) -> int:
    """The context that is planned for; the model's longest where none was asked. Raises Failure."""
    if context is not None and not 0 < context <= longest:
        raise bad_input(f"--context: should be 1 to the model's {longest:,}, got {context:,}")
    return context or longest


def _requests(options: Options, found: Load | None, context_tokens: int) -> Requests:
    if found:
        return Requests(prompt_tokens=found.prompt_tokens, output_tokens=found.output_tokens)
    prompt = options.prompt or max(1, min(PROMPT_TOKENS, context_tokens // 2))
    output = options.output or max(1, min(OUTPUT_TOKENS, context_tokens // 4))
    return Requests(prompt_tokens=prompt, output_tokens=output)


def _origin(options: Options, found: Load | None) -> str:
    if found:
        minutes = found.span_s / 60
        return (
            f"mean lengths and the fullest minute of {options.trace}: "
            f"{found.requests:,} requests in {minutes:,.3g} min, {found.mean_rate_per_s:.3g}/s in the mean"
        )
    missing = [name for name, given in (("--in", options.prompt), ("--out", options.output)) if given is None]
    return f"lengths assumed: {' and '.join(missing)} say them" if missing else "lengths as given"


def _check_together(options: Options) -> None:
    if options.trace:
        for name, given in (("--rate", options.rate), ("--in", options.prompt), ("--out", options.output)):
            if given is not None:
                raise bad_input(f"{name}: a trace says it already; leave out {name} or --trace")
    for name, given in (("--ttft", options.ttft), ("--tpot", options.tpot)):
        if given is not None and options.rate is None and not options.trace:
            raise bad_input(f"{name}: a target goes with --rate or --trace: how many requests come?")
    if options.quantization and options.variants:
        raise bad_input("--variants: forms are either forecast (--quantization) or measured (--variants), not both")
    if options.teacher and options.train != "distil":
        raise bad_input("--teacher: goes with --train distil")


def _check_numbers(options: Options) -> None:
    positive = (("--rate", options.rate), ("--ttft", options.ttft), ("--tpot", options.tpot), ("--in", options.prompt))
    positive = (*positive, ("--out", options.output), ("--devices-per-machine", options.devices_per_machine))
    for name, given in positive:
        if given is not None and not (isfinite(given) and given > 0):
            raise bad_input(f"{name}: should be above 0, got {given:g}")
    for scheme in options.quantization:
        if scheme not in SCHEMES:
            near = nearest(scheme, list(SCHEMES))
            raise bad_input(f"--quantization: should be one of {', '.join(SCHEMES)}, got {scheme!r}{near}")
    if options.train and options.train not in get_args(Training):
        raise bad_input(f"--train: should be one of {', '.join(get_args(Training))}, got {options.train!r}")
