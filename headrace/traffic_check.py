"""Does a calibration foresee traffic that it was not fitted to? Loads in turns with its own, through the simulator."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from cluster.calibration import Calibration, Residual
from cluster.devices import Device
from cluster.engine_memory import EngineSettings
from cluster.model import Model, in_float32
from cluster.speed import Speeds, step_seconds
from cluster.step_time import Layout
from deployments.calibration_loads import have_room
from deployments.engine_process import EngineFacts
from deployments.timed_engine import Request, TimedEngine
from simulation.engine import Engine
from simulation.replay import replay

STAGGER_S = 0.02
"""Between two requests: which of several sent at once are in the first step is an accident."""
BLOCK_TOKENS = 16
"""Of the cache; the loads fill little of it, so its blocks' size does not count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What users see of a load: means over its requests."""

    ttft_s: float
    token_s: float
    second_per_token: float
    """1 / output tokens per second, from the first request on."""


FIGURES = {"ttft_s": "first token", "token_s": "time per token", "second_per_token": "1 / tokens per s"}


def staggered(count: int, prompt_tokens: int, output_tokens: int) -> list[Request]:
    """One every STAGGER_S."""
    return [
        Request(prompt_tokens=prompt_tokens, output_tokens=output_tokens, after_s=number * STAGGER_S)
        for number in range(count)
    ]


def mixed(count: int, rate_per_s: float, seed: int) -> list[Request]:
    """Prompts and answers of all lengths, at random times: prompts are read beside answers that grow."""
    source, now_s, found = random.Random(seed), 0.0, []
    for _ in range(count):
        lengths = int(2 ** source.uniform(4, 9)), int(2 ** source.uniform(3, 6))
        found.append(Request(prompt_tokens=lengths[0], output_tokens=lengths[1], after_s=now_s))
        now_s += source.expovariate(rate_per_s)
    return found


LOADS = {
    "one of 100": staggered(1, 100, 32),
    "one of 300": staggered(1, 300, 32),
    "one of 750": staggered(1, 750, 32),
    "3 of 200": staggered(3, 200, 32),
    "6 of 100": staggered(6, 100, 40),
    "12 of 150": staggered(12, 150, 40),
    "24 of 60": staggered(24, 60, 40),
    "20 mixed, 2 a second": mixed(20, 2.0, seed=1),
    "30 mixed, 5 a second": mixed(30, 5.0, seed=2),
}


class TrafficCheck:
    """Loads of traffic, measured bit by bit while an engine is calibrated."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._seen: dict[str, list[Seen]] = {}
        self._facts: EngineFacts | None = None

    def measure(self, engine: TimedEngine) -> None:
        """Each load once more, as far as the engine takes it. Raises EngineFailed."""
        self._facts = engine.facts
        for name, requests in LOADS.items():
            if fits(requests, engine.facts):
                self._tell(name)
                self._seen.setdefault(name, []).append(seen(requests, engine.undisturbed_times_s(requests)))

    def residuals(self, calibration: Calibration, shape: Model, device: Device) -> Iterator[Residual]:
        """Medians of what was measured, beside what the calibration foresees; none where nothing was measured."""
        for name, each in self._seen.items():
            assert self._facts is not None
            expected = foreseen(LOADS[name], self._facts, calibration, shape, device)
            for figure, words in FIGURES.items():
                measured_s = median(getattr(one, figure) for one in each)
                predicted_s = getattr(expected, figure)
                yield Residual(point=f"{name}: {words}", measured_s=measured_s, predicted_s=predicted_s)


def fits(requests: Sequence[Request], facts: EngineFacts) -> bool:
    """Whether no request waits: that would be another question."""
    return len(requests) <= facts.slots and have_room(requests, facts)


def seen(requests: Sequence[Request], times_s: Sequence[Sequence[float]]) -> Seen:
    """Of one run of a load: seconds of each token of each request."""
    pairs = list(zip(requests, times_s, strict=True))
    return Seen(
        ttft_s=fmean(each[0] - request.after_s for request, each in pairs),
        token_s=fmean((each[-1] - each[0]) / (len(each) - 1) for _, each in pairs),
        second_per_token=max(each[-1] for each in times_s) / sum(map(len, times_s)),
    )


def foreseen(
    requests: Sequence[Request], facts: EngineFacts, calibration: Calibration, shape: Model, device: Device
) -> Seen:
    """By the simulator, which schedules as vLLM does; on CPUs vLLM plans no step ahead (its platforms/cpu.py)."""
    settings = EngineSettings(
        max_sequences=facts.slots,
        batched_tokens=facts.step_tokens,
        context_tokens=facts.max_model_len,
        block_tokens=BLOCK_TOKENS,
    )
    dtype = calibration.model.dtype
    speeds = Speeds(coefficients=calibration.coefficients, error=calibration.error, origin="", dtype=dtype)
    layout = Layout(tensor=calibration.tensor, pipeline=calibration.pipeline)
    shape, kv_bits = (in_float32(shape), 32) if dtype == "fp32" else (shape, 16)
    step = step_seconds(shape, device, speeds, layout=layout, kv_bits=kv_bits)
    blocks, ahead = facts.kv_tokens // BLOCK_TOKENS, device.capability != "cpu"
    engine = Engine(settings, kv_blocks=blocks, step=step, plans_ahead=ahead)
    arrivals = [(request.after_s, request.prompt_tokens, request.output_tokens) for request in requests]
    done = replay(arrivals, engine)
    return Seen(
        ttft_s=fmean(each.first_token_s - each.arrival_s for each in done),
        token_s=fmean((each.last_token_s - each.first_token_s) / (each.output_tokens - 1) for each in done),
        second_per_token=max(each.last_token_s for each in done) / sum(each.output_tokens for each in done),
    )
