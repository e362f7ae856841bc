"""Which devices `--gpu` means, and what they compute in."""

from dataclasses import replace
from math import inf

import pytest

from cluster.inventory import Machine
from cluster.service import Requests
from headrace.failure import Failure
from headrace.plan_answer import Question, answer
from headrace.plan_asked import Traffic
from headrace.plan_devices import places
from headrace.plan_variants import Variant
from tests.cluster.shapes import dense

CPU = Machine(
    cores=8, memory_bytes=64 * 2**30, available_bytes=32 * 2**30, gpus=(), cpu_features=frozenset({"avx2", "avx512f"})
)
FOUR_L4 = replace(CPU, gpus=tuple(f"GPU {index}: NVIDIA L4 (UUID: GPU-{index})" for index in range(4)))


def test_auto_is_the_gpus_that_are_here_and_all_of_them_share_the_machine() -> None:
    (place,) = places((), None, FOUR_L4)
    assert (place.device.name, place.per_machine) == ("l4", 4)


def test_a_gpu_whose_facts_are_not_known_is_refused_by_name() -> None:
    with pytest.raises(Failure, match=r"--gpu auto: the facts of GPU 0: NVIDIA T4 aren't known"):
        places(("auto",), None, replace(CPU, gpus=("GPU 0: NVIDIA T4",)))


def test_a_device_that_is_named_twice_is_planned_once() -> None:
    assert [place.device.name for place in places(("l4", "L4", "auto"), None, FOUR_L4)] == ["l4"]


def test_the_size_of_a_machine_may_be_said() -> None:
    assert [place.per_machine for place in places(("h100", "4gb"), None, CPU)] == [8, 1]
    assert [place.per_machine for place in places(("h100", "4gb"), 2, CPU)] == [2, 2]


def test_a_cpu_that_would_emulate_bfloat16_holds_weights_and_cache_in_float32() -> None:
    old = replace(CPU, cpu_features=frozenset({"avx2"}))
    narrow, wide = (answer(_whole(), places(("cpu",), None, machine)[0], _question()) for machine in (CPU, old))
    assert narrow.replica is not None
    assert wide.replica is not None
    assert (narrow.replica.speeds.dtype, wide.replica.speeds.dtype) == ("bf16", "fp32")
    assert wide.alone.memory.weights_bytes == 2 * narrow.alone.memory.weights_bytes
    assert wide.alone.sequence_bytes == 2 * narrow.alone.sequence_bytes


def _whole() -> Variant:
    return Variant(name="as it is", model=dense(layers=4, context_tokens=2_048), arithmetic=None)


def _question() -> Question:
    load = Traffic(
        requests=Requests(prompt_tokens=256, output_tokens=64), rate_per_s=None, ttft_s=inf, token_s=inf, origin=""
    )
    return Question(traffic=load, context_tokens=1_024, calibrations=(), prices_per_hour={}, remedies=tuple)
