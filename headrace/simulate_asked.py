"""What was `headrace simulate` asked? The options of the command line, checked once."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from deployments.file_errors import nearest
from headrace.failure import bad_input
from simulation.baselines import BASELINES

OURS, ALONE, ORACLE = "headrace", "alone", "oracle"
"""`alone` is Headrace's own too, without the model's variants."""
POLICIES = (OURS, *BASELINES, ORACLE, ALONE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """As typed."""

    trace: str
    fleet: str | None = None
    model: str | None = None
    policies: tuple[str, ...] = ()
    gpu: str | None = None
    startup: float = 60.0
    scale: float = 1.0
    tile: float = 0.0
    seeds: int = 1
    failures: float | None = None
    prices: str | None = None
    steps: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A policy, and the value of its knob where one was given."""

    name: str
    knob: float | None = None

    def __str__(self) -> str:
        return self.name if self.knob is None else f"{self.name}={self.knob:g}"


def check(options: Options) -> tuple[Asked, ...]:
    """The policies; Headrace's own where none is named. Raises Failure for what makes no sense."""
    above = (("--scale", options.scale), ("--seeds", options.seeds), ("--failures", options.failures))
    for name, given in above:
        if given is not None and not (isfinite(given) and given > 0):
            raise bad_input(f"{name}: should be above 0, got {given:g}")
    for name, given in (("--startup", options.startup), ("--tile", options.tile)):
        if not (isfinite(given) and given >= 0):
            raise bad_input(f"{name}: should be a number from 0 on, got {given:g}")
    return _policies(options.policies or (OURS,))


def _policies(names: Sequence[str]) -> tuple[Asked, ...]:
    found: list[Asked] = []
    for text in (part for name in names for part in name.split(",")):
        every = [Asked(name=name) for name in POLICIES if name != ALONE] if text == "all" else [_policy(text)]
        found += [one for one in every if one not in found]
    return tuple(found)


def _policy(text: str) -> Asked:
    name, given, knob = text.partition("=")
    if name not in POLICIES:
        near = nearest(name, list(POLICIES))
        raise bad_input(f"--policy: should be one of {', '.join(POLICIES)} or all, got {name!r}{near}")
    if not given:
        return Asked(name=name)
    if name in (OURS, ALONE):
        raise bad_input(f"--policy: {name} is set by `scaling` in the fleet file, got {text!r}")
    try:
        value = float(knob)
    except ValueError:
        value = float("nan")
    if not (isfinite(value) and value > 0):
        raise bad_input(f"--policy: {name}= should be followed by a number above 0, got {knob!r}")
    return Asked(name=name, knob=value)
