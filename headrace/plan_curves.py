"""How do replicas, cost and waiting change with the rate? Points for the plots of a plan's page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

from cluster.service import service
from cluster.sizing import cost, size
from cluster.speed import stepper
from cluster.step_time import StepTime
from cluster.step_work import Chunk, Work, work
from headrace.plan_answer import Answer, Replica, targets
from headrace.plan_asked import Traffic

RATES = 17
"""Points of a curve over rates."""
AROUND = 16.0
"""Rates are drawn from so many times less to so many times more than the one that was asked."""
SHARES = tuple(0.05 * step for step in range(1, 20))
"""Of what one replica can finish, for its waiting."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """A value, and what it is where all times are shorter or longer by the error; None where nothing is enough."""

    rate_per_s: float
    value: float
    low: float
    high: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """Seconds to the first token of one replica at a rate."""

    rate_per_s: float
    mean_s: float
    p95_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A step in a roofline: on one device."""

    name: str
    intensity: float
    """Operations for each byte that is read or written."""
    flops: float
    """Reached, per second."""


def middle_rate(answers: Sequence[Answer], traffic: Traffic) -> float:
    """Around which rates are drawn: what was asked, or what a replica of the first can finish."""
    if traffic.rate_per_s is not None:
        return traffic.rate_per_s
    first = next(answer.replica for answer in answers if answer.replica)
    return first.speed.full_tokens_per_s / traffic.requests.output_tokens


def rates(middle: float) -> list[float]:
    """From low to high, each the same factor above the last."""
    return [middle / AROUND * AROUND ** (2 * step / (RATES - 1)) for step in range(RATES)]


def replicas(answer: Answer, replica: Replica, traffic: Traffic, at: Sequence[float]) -> list[Band]:
    """The fewest that keep the targets, where any number does."""
    return list(_replicas(answer, replica, traffic, at))


def costs(bands: Sequence[Band], replica: Replica, traffic: Traffic, price_per_hour: float) -> list[Band]:
    """Of a million tokens, prompts and answers, where so many replicas serve."""

    def each(band: Band, count: float) -> float:
        return cost(
            targets(traffic, band.rate_per_s),
            replicas=int(count),
            devices=replica.devices,
            price_per_device_hour=price_per_hour,
        ).per_million_tokens

    return [
        Band(
            rate_per_s=band.rate_per_s,
            value=each(band, band.value),
            low=each(band, band.low),
            high=None if band.high is None else each(band, band.high),
        )
        for band in bands
    ]


def waits(answer: Answer, replica: Replica, traffic: Traffic) -> list[Wait]:
    """Of one replica alone, up to nearly all that it can finish."""
    most = replica.speed.full_tokens_per_s / traffic.requests.output_tokens
    found = (
        service(
            traffic.requests, share * most, slots=replica.slots, settings=answer.settings, step=answer.steps(replica)
        )
        for share in SHARES
    )
    return [
        Wait(rate_per_s=one.rate_per_s, mean_s=one.ttft_s, p95_s=one.ttft_p95_s)
        for one in found
        if isfinite(one.ttft_p95_s)
    ]


def points(answer: Answer, replica: Replica, traffic: Traffic) -> list[Point]:
    """A prompt alone, a token alone, and the tokens of a full replica."""
    timed = stepper(
        answer.model, answer.device, replica.speeds, layout=replica.fit.layout, kv_bits=answer.settings.kv_bits
    )
    requests = traffic.requests
    prompt = Chunk(new_tokens=min(requests.prompt_tokens, answer.settings.batched_tokens), context_tokens=0)
    one = Chunk(new_tokens=1, context_tokens=requests.context_tokens)
    full = Chunk(new_tokens=1, context_tokens=requests.context_tokens, count=replica.slots)
    named = {"prefill": prompt, "decode, 1": one, f"decode, {replica.slots:,}": full}
    return [
        _point(name, work(answer.model, [chunk], kv_bits=answer.settings.kv_bits), timed([chunk]), replica)
        for name, chunk in named.items()
    ]


def _point(name: str, done: Work, step: StepTime, replica: Replica) -> Point:
    operations = done.linear_flops + done.head_flops + done.attention_flops
    return Point(
        name=name,
        intensity=operations / (done.weight_bytes + done.kv_bytes),
        flops=operations / step.seconds / replica.fit.layout.tensor,
    )


def _replicas(answer: Answer, replica: Replica, traffic: Traffic, at: Sequence[float]) -> Iterator[Band]:
    for rate in at:
        found = size(
            targets(traffic, rate),
            slots=replica.slots,
            settings=answer.settings,
            step=answer.steps(replica),
            error=replica.speeds.error,
        )
        if found.replicas is not None and found.replicas_if_faster is not None:
            yield Band(
                rate_per_s=rate,
                value=found.replicas,
                low=found.replicas_if_faster,
                high=found.replicas_if_slower,
            )
