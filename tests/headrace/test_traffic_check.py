"""Is what a calibration foresees of traffic compared with what an engine did, figure by figure?"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from cluster.calibration import Calibration, identity
from cluster.device_facts import this_cpu
from cluster.engine_memory import EngineSettings
from cluster.inventory import Machine
from cluster.model_config import read
from cluster.speed import Speeds, step_seconds
from cluster.step_time import Coefficients, Layout
from deployments.engine_process import EngineFacts
from deployments.timed_engine import Request
from headrace.traffic_check import BLOCK_TOKENS, LOADS, TrafficCheck
from simulation.engine import Engine
from simulation.replay import replay
from tests.headrace.plan_models import SMALL, checkpoint

FACTS = EngineFacts(dtype="bfloat16", max_model_len=2048, slots=64, step_tokens=2048, kv_tokens=40_000, vocabulary=1000)
FOUND = Coefficients(
    compute=0.3, bandwidth=0.5, kv_bandwidth=0.4, step_s=2e-3, sequence_s=2e-4, token_s=1e-5, attention=0.5
)
CPU = this_cpu(
    Machine(cores=2, memory_bytes=8 << 30, available_bytes=8 << 30, gpus=(), cpu_features=frozenset({"avx512f"}))
)


class Formula:
    """An engine that takes as long for each step as coefficients say."""

    def __init__(self, shape: Any, coefficients: Coefficients, facts: EngineFacts = FACTS) -> None:
        speeds = Speeds(coefficients=coefficients, error=0.0, origin="", dtype="bf16")
        self._step = step_seconds(shape, CPU, speeds, layout=Layout(), kv_bits=16)
        self.facts = facts

    def undisturbed_times_s(self, requests: Sequence[Request]) -> list[list[float]]:
        settings = EngineSettings(max_sequences=64, batched_tokens=2048, context_tokens=2048, block_tokens=BLOCK_TOKENS)
        engine = Engine(settings, kv_blocks=2500, step=self._step, plans_ahead=False)
        done = replay([(each.after_s, each.prompt_tokens, each.output_tokens) for each in requests], engine)
        return [[each.first_token_s] + [each.last_token_s] * (each.output_tokens - 1) for each in done]


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return read(checkpoint(tmp_path_factory.mktemp("small") / "model", SMALL))


def calibration(shape: Any) -> Calibration:
    return Calibration(
        device="cpu", tensor=1, pipeline=1, model=identity(shape, "bf16"), engine={}, coefficients=FOUND,
        residuals=(), checks=(), date="2026-01-01", versions={},
    )  # fmt: skip


def checked(engine: Formula, shape: Any) -> dict[str, float]:
    """Predicted by measured, of each figure."""
    heard: list[str] = []
    check = TrafficCheck(heard.append)
    check.measure(engine)  # pyright: ignore[reportArgumentType]
    assert set(heard) <= set(LOADS)
    return {one.point: one.predicted_s / one.measured_s for one in check.residuals(calibration(shape), shape, CPU)}


def test_an_engine_that_does_as_the_formula_says_is_foreseen_exactly(shape: Any) -> None:
    ratios = checked(Formula(shape, FOUND), shape)
    assert len(ratios) == 27
    assert all(ratio == pytest.approx(1.0) for ratio in ratios.values())


def test_an_engine_that_got_slower_is_seen_as_slower_in_every_figure(shape: Any) -> None:
    slower = replace(FOUND, compute=0.2, bandwidth=0.3, step_s=4e-3, sequence_s=4e-4)
    assert all(ratio < 0.99 for ratio in checked(Formula(shape, slower), shape).values())


def test_loads_that_an_engine_would_let_wait_are_left_out(shape: Any) -> None:
    small = replace(FACTS, slots=8, max_model_len=512)
    names = {point.partition(":")[0] for point in checked(Formula(shape, FOUND, small), shape)}
    assert names == {"one of 100", "one of 300", "3 of 200", "6 of 100"}


def test_a_calibration_without_a_check_has_none(shape: Any) -> None:
    assert list(TrafficCheck(print).residuals(calibration(shape), shape, CPU)) == []
