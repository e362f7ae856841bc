"""Does one form of a model fit on one kind of device, how fast is it there, and how many are needed?"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from cluster.calibration import Calibration
from cluster.devices import Device
from cluster.engine_memory import EngineSettings
from cluster.fit import Fit, Remedy, fit, remedies, smallest_fit
from cluster.layouts import refusals
from cluster.model import Model, in_float32
from cluster.service import StepSeconds, usable_slots
from cluster.sizing import Cost, Sizing, Targets, cost, most_per_s, size
from cluster.speed import Speed, Speeds, speed, step_seconds
from cluster.step_time import Layout
from headrace import engine_settings
from headrace.plan_asked import Traffic
from headrace.plan_devices import Place, speeds
from headrace.plan_variants import Variant

MOST_DEVICES = 64
"""Of one replica, over several machines."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is the same for every form and device."""

    traffic: Traffic
    context_tokens: int
    calibrations: Sequence[Calibration]
    prices_per_hour: Mapping[str, float]
    """By device, of those that have one."""
    remedies: Callable[[], Iterable[Variant]]
    """Forms that are tried where the model does not fit on one device."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replica:
    """A layout that holds the model, and what it gives."""

    fit: Fit
    speeds: Speeds
    slots: int
    """Sequences of the planned requests that run at once."""
    speed: Speed
    sizing: Sizing | None
    """None without a rate."""

    @property
    def devices(self) -> int:
        return self.fit.layout.devices

    @property
    def all_devices(self) -> float:
        """Of all replicas; inf where no number of them keeps the targets."""
        if self.sizing is None:
            return self.devices
        return inf if self.sizing.replicas is None else self.sizing.replicas * self.devices


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One form of a model on one kind of device."""

    variant: Variant
    place: Place
    model: Model
    """The variant's, as an engine holds it there."""
    settings: EngineSettings
    alone: Fit
    """On one device."""
    splits: tuple[Fit, ...]
    """Over the devices of one machine, by tensor parallelism."""
    refused: tuple[tuple[int, tuple[str, ...]], ...]
    """Numbers of devices over which it can't be split so, and why."""
    remedies: tuple[Remedy, ...]
    replica: Replica | None
    """None where nothing of at most MOST_DEVICES devices holds it."""
    cost: Cost | None
    """None without a rate, a price, or a number of replicas."""
    most_per_s: float | None
    """Requests that one replica takes within the promises; None without a rate, or where no fleet file is asked of."""

    @property
    def device(self) -> Device:
        return self.place.device

    def steps(self, replica: Replica) -> StepSeconds:
        """Seconds of the replica's steps."""
        return step_seconds(
            self.model, self.device, replica.speeds, layout=replica.fit.layout, kv_bits=self.settings.kv_bits
        )


def answer(variant: Variant, place: Place, question: Question) -> Answer:
    """The whole answer. Raises NotAllocated."""
    model = in_float32(variant.model) if place.dtype == "fp32" else variant.model
    settings = _settings(variant, place, question)
    alone = fit(model, place.device, layout=Layout(), settings=settings)
    splits, refused = _splits(model, place, settings)
    bare = Answer(
        variant=variant,
        place=place,
        model=model,
        settings=settings,
        alone=alone,
        splits=splits,
        refused=refused,
        remedies=() if alone.fits else _remedies(model, place, settings, question.remedies()),
        replica=None,
        cost=None,
        most_per_s=None,
    )
    replica = _fewest_devices(_made(bare, held, question) for held in _held(bare))
    return replace(
        bare,
        replica=replica,
        cost=_cost(replica, question, place.device),
        most_per_s=_most_per_s(bare, replica, question.traffic),
    )


def _settings(variant: Variant, place: Place, question: Question) -> EngineSettings:
    if variant.served is None:
        return engine_settings.settings_for(place.device, context_tokens=question.context_tokens)
    return engine_settings.settings(
        variant.served.engine, place.device, longest_tokens=min(question.context_tokens, variant.model.context_tokens)
    )


def targets(traffic: Traffic, rate_per_s: float) -> Targets:
    """The promises at a rate."""
    return Targets(rate_per_s=rate_per_s, requests=traffic.requests, ttft_s=traffic.ttft_s, token_s=traffic.token_s)


def _splits(
    model: Model, place: Place, settings: EngineSettings
) -> tuple[tuple[Fit, ...], tuple[tuple[int, tuple[str, ...]], ...]]:
    reasons = {count: refusals(model, count) for count in range(1, place.per_machine + 1)}
    fits = [
        fit(model, place.device, layout=Layout(tensor=count), settings=settings)
        for count, reason in reasons.items()
        if not reason
    ]
    return tuple(fits), tuple((count, reason) for count, reason in reasons.items() if reason)


def _remedies(model: Model, place: Place, settings: EngineSettings, others: Iterable[Variant]) -> tuple[Remedy, ...]:
    return remedies(
        model,
        place.device,
        layout=Layout(),
        settings=settings,
        others=[(other.name, other.model) for other in others],
        per_machine=place.per_machine,
    )


def _held(bare: Answer) -> list[Fit]:
    """The splits that hold the model; where none does, the smallest layout with stages. Or the fleet file's."""
    if bare.variant.served and (layout := bare.variant.served.layout):
        if refusals(bare.model, layout.tensor):
            return []
        given = fit(bare.model, bare.device, layout=layout, settings=bare.settings)
        return [given] if given.fits else []
    held = [each for each in bare.splits if each.fits]
    if held or bare.place.per_machine == 1:
        return held
    wider = smallest_fit(
        bare.model,
        bare.device,
        settings=bare.settings,
        devices=MOST_DEVICES,
        per_machine=bare.place.per_machine,
    )
    return [wider] if wider else []


def _fewest_devices(replicas: Iterable[Replica]) -> Replica | None:
    return min(replicas, key=lambda replica: (replica.all_devices, replica.devices), default=None)


def _made(bare: Answer, held: Fit, question: Question) -> Replica:
    arithmetic = bare.variant.arithmetic
    # Where a device lacks the narrow dtype, the engine widens weights before it multiplies.
    dtype = arithmetic if arithmetic in bare.device.flops else bare.place.dtype
    known = speeds(bare.model, bare.device, dtype=dtype or "", layout=held.layout, calibrations=question.calibrations)
    slots = _slots(bare, held, question.traffic)
    bound = speed(
        bare.model,
        bare.device,
        known,
        layout=held.layout,
        settings=bare.settings,
        requests=question.traffic.requests,
        slots=slots,
    )
    replica = Replica(fit=held, speeds=known, slots=slots, speed=bound, sizing=None)
    return replace(replica, sizing=_sizing(bare, replica, question.traffic))


def _slots(bare: Answer, held: Fit, traffic: Traffic) -> int:
    """As many whole requests as the cache holds and a step has room for."""
    requests = traffic.requests
    whole = replace(bare.settings, context_tokens=requests.prompt_tokens + requests.output_tokens)
    cached = fit(bare.model, bare.device, layout=held.layout, settings=whole).largest_batch
    return max(1, usable_slots(requests, slots=int(cached), settings=bare.settings))


def _sizing(bare: Answer, replica: Replica, traffic: Traffic) -> Sizing | None:
    if traffic.rate_per_s is None:
        return None
    return size(
        targets(traffic, traffic.rate_per_s),
        slots=replica.slots,
        settings=bare.settings,
        step=bare.steps(replica),
        error=replica.speeds.error,
    )


def _most_per_s(bare: Answer, replica: Replica | None, traffic: Traffic) -> float | None:
    if replica is None or traffic.rate_per_s is None or bare.variant.served is None:
        return None
    return most_per_s(
        targets(traffic, traffic.rate_per_s), slots=replica.slots, settings=bare.settings, step=bare.steps(replica)
    )


def _cost(replica: Replica | None, question: Question, device: Device) -> Cost | None:
    traffic, price = question.traffic, question.prices_per_hour.get(device.name)
    if replica is None or replica.sizing is None or replica.sizing.replicas is None or price is None:
        return None
    return cost(
        targets(traffic, traffic.rate_per_s or 0.0),
        replicas=replica.sizing.replicas,
        devices=replica.devices,
        price_per_device_hour=price,
    )
