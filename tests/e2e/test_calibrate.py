"""After a calibration, does the cost model know how fast the engine is at loads that it has not seen?"""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from time import monotonic

import psutil
import pytest

from cluster.calibration import Calibration, from_json
from cluster.device_facts import this_cpu
from cluster.engine_memory import EngineSettings
from cluster.inventory import machine
from cluster.model_config import read
from cluster.service import StepSeconds
from cluster.step_time import Layout, step_time
from cluster.step_work import Chunk, work
from deployments.engine_process import EngineFacts
from deployments.fleet import Model
from deployments.timed_engine import Request, TimedEngine, timed_engine
from headrace.fetching import cache_folder, resolve
from simulation.engine import Engine
from simulation.replay import replay
from tests.e2e.typed import headrace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ALLOWED = 0.15
ROUNDS = 3
STAGGER_S = 0.02
BLOCK_TOKENS = 128


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What users see of a load."""

    ttft_s: float
    token_s: float
    tokens_per_s: float


def staggered(count: int, prompt_tokens: int, output_tokens: int) -> list[Request]:
    """One every STAGGER_S: which of several prompts sent at once are in the first step is an accident."""
    return [
        Request(prompt_tokens=prompt_tokens, output_tokens=output_tokens, after_s=number * STAGGER_S)
        for number in range(count)
    ]


def traffic(count: int, rate_per_s: float, seed: int) -> list[Request]:
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
    "20 mixed, 2 a second": traffic(20, 2.0, seed=1),
    "30 mixed, 5 a second": traffic(30, 5.0, seed=2),
}


def foreseen(requests: Sequence[Request], facts: EngineFacts, step: StepSeconds) -> Seen:
    """By the simulator, which schedules as vLLM does; on CPUs vLLM plans no step ahead (its platforms/cpu.py)."""
    settings = EngineSettings(
        max_sequences=facts.slots,
        batched_tokens=facts.step_tokens,
        context_tokens=facts.max_model_len,
        block_tokens=BLOCK_TOKENS,
    )
    engine = Engine(settings, kv_blocks=facts.kv_tokens // BLOCK_TOKENS, step=step, plans_ahead=False)
    arrivals = [(request.after_s, request.prompt_tokens, request.output_tokens) for request in requests]
    done = replay(arrivals, engine)
    return Seen(
        ttft_s=fmean(each.first_token_s - each.arrival_s for each in done),
        token_s=fmean((each.last_token_s - each.first_token_s) / (each.output_tokens - 1) for each in done),
        tokens_per_s=sum(each.output_tokens for each in done) / max(each.last_token_s for each in done),
    )


def seen(requests: Sequence[Request], times: list[list[float]]) -> Seen:
    pairs = list(zip(requests, times, strict=True))
    return Seen(
        ttft_s=fmean(each[0] - request.after_s for request, each in pairs),
        token_s=fmean((each[-1] - each[0]) / (len(each) - 1) for _, each in pairs),
        tokens_per_s=sum(map(len, times)) / max(each[-1] for each in times),
    )


def stepper(calibration: Calibration, folder: Path) -> StepSeconds:
    shape, device = read(folder), this_cpu(machine())
    found, dtype = calibration.coefficients, calibration.model.dtype
    bits = {"bf16": 16, "fp32": 32}[dtype]

    def step(chunks: Sequence[Chunk]) -> float:
        todo = work(shape, chunks, kv_bits=bits)
        return step_time(todo, device, found, dtype=dtype, layers=shape.layers, layout=Layout()).seconds

    return step


def environment(folder: Path) -> dict[str, str]:
    """The models that are here already, and everything else in a folder of its own."""
    return os.environ | {"HEADRACE_CACHE": str(cache_folder()), "HEADRACE_STATE": str(folder / "state")}


def medians(engine: TimedEngine) -> dict[str, Seen]:
    """Of each load. They take turns, so that noise meets all of them."""
    found: dict[str, list[Seen]] = {name: [] for name in LOADS}
    for _ in range(ROUNDS):
        for name, requests in LOADS.items():
            found[name].append(seen(requests, engine.undisturbed_times_s(requests)))
    return {
        name: Seen(
            ttft_s=median(one.ttft_s for one in each),
            token_s=median(one.token_s for one in each),
            tokens_per_s=median(one.tokens_per_s for one in each),
        )
        for name, each in found.items()
    }


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    folder = tmp_path_factory.mktemp("calibrate")
    done = headrace(
        "calibrate", "smollm2", "--output", str(folder / "found.json"), env=environment(folder), timeout_s=1000
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return from_json((folder / "found.json").read_text())


@pytest.mark.prove
def test_the_fitted_formula_describes_every_load(
    calibration: Calibration, record_property: Callable[[str, object], None]
) -> None:
    for residual in calibration.residuals:
        off = residual.predicted_s / residual.measured_s - 1
        record_property(residual.point, f"measured {residual.measured_s:.4g}, predicted {off:+.1%}")
    assert calibration.points >= 16
    assert calibration.error <= ALLOWED


@pytest.mark.prove
def test_unseen_loads_take_as_long_as_foreseen(
    calibration: Calibration, record_property: Callable[[str, object], None]
) -> None:
    folder, errors = resolve("smollm2"), {}
    with timed_engine(Model(name="smollm2", source=str(folder))) as engine:
        facts, measured = engine.facts, medians(engine)
    step = stepper(calibration, folder)
    for name, requests in LOADS.items():
        expected = foreseen(requests, facts, step)
        for what in ("ttft_s", "token_s", "tokens_per_s"):
            one, other = getattr(measured[name], what), getattr(expected, what)
            errors[f"{name}: {what}"] = other / one - 1
            record_property(f"{name}: {what}", f"measured {one:.4g}, foreseen {other:.4g}, {other / one - 1:+.1%}")
    off = {name: f"{error:+.1%}" for name, error in errors.items() if abs(error) > ALLOWED}
    assert not off


@pytest.mark.prove
def test_ctrl_c_while_it_measures_leaves_no_process(tmp_path: Path) -> None:
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, "-m", "headrace", "calibrate", "tiny"]
    with subprocess.Popen(command, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        started = psutil.Process(run.pid)
        while not any("EngineCore" in child.name() for child in started.children(recursive=True)):
            assert run.poll() is None, run.stdout.read() if run.stdout else ""
        children = started.children(recursive=True)
        run.send_signal(signal.SIGINT)
        begin_s = monotonic()
        run.wait(timeout=60)
        gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, f"{len(alive)} processes are left after {monotonic() - begin_s:.0f} s, {len(gone)} ended"
    assert not (tmp_path / "state" / "calibrations").exists()
