"""Before anything starts: does an engine hold the model here, over how many GPUs, and what would it hold?"""

from pathlib import Path
from typing import Any

import pytest

from cluster.inventory import Machine
from deployments.fleet import Fleet, validate
from headrace.failure import Failure
from headrace.fitting import check_fit, settled
from tests.headrace.plan_models import LLAMA_8B, LLAMA_70B, checkpoint

GIB = 2**30


def machine(gpu: str = "NVIDIA H100 80GB HBM3", *, gpus: int = 0, avx512: bool = True) -> Machine:
    return Machine(
        cores=8,
        memory_bytes=64 * GIB,
        available_bytes=60 * GIB,
        gpus=tuple(f"GPU {number}: {gpu} (UUID: GPU-{number})" for number in range(gpus)),
        cpu_features=frozenset({"avx2", "avx512f"} if avx512 else {"avx2"}),
    )


def fleet(folder: Path, **fields: Any) -> Fleet:
    return validate({"models": [{"name": "one", "source": str(folder)} | fields]})


@pytest.mark.parametrize(
    ("context_tokens", "gpus", "taken"),
    [(8192, 1, 1), (8192, 8, 1), (131_072, 8, 1)],
)
def test_auto_takes_one_gpu_where_one_holds_the_model(
    context_tokens: int, gpus: int, taken: int, tmp_path: Path
) -> None:
    wish = fleet(
        checkpoint(tmp_path / "model", LLAMA_8B), tensor_parallel="auto", engine={"max_model_len": context_tokens}
    )
    assert settled(wish, machine(gpus=gpus)).models[0].tensor == taken


def test_auto_takes_as_many_as_weights_and_one_sequence_need(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model", LLAMA_70B)
    short = fleet(folder, tensor_parallel="auto", engine={"max_model_len": 8192})
    assert settled(short, machine(gpus=8)).models[0].tensor == 2
    assert settled(fleet(folder, tensor_parallel="auto"), machine(gpus=8)).models[0].tensor == 4


def test_auto_says_what_would_fit_where_all_gpus_of_the_machine_are_too_few(tmp_path: Path) -> None:
    wish = fleet(checkpoint(tmp_path / "model", LLAMA_70B), tensor_parallel="auto")
    with pytest.raises(Failure, match=r"one does not fit on 2 x h100: .*what would fit: .*a context of [\d,]+ tokens"):
        settled(wish, machine(gpus=2))


def test_auto_is_one_on_a_cpu_and_a_number_stays_as_it_is(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model", LLAMA_8B)
    assert settled(fleet(folder, tensor_parallel="auto"), machine()).models[0].tensor == 1
    assert settled(fleet(folder, tensor_parallel=3), machine(gpus=8)).models[0].tensor == 3


def test_auto_on_a_gpu_whose_facts_are_not_known_asks_for_a_number(tmp_path: Path) -> None:
    wish = fleet(checkpoint(tmp_path / "model", LLAMA_8B), tensor_parallel="auto")
    with pytest.raises(Failure, match="write a number"):
        settled(wish, machine("NVIDIA Quadro 12345", gpus=1))


@pytest.mark.parametrize(
    ("engine", "line"),
    [
        (
            {"kv_cache_memory_bytes": GIB},
            r"one sequence of 131,072 tokens takes 17\.2 GB; what would fit: a context of",
        ),
        ({"kv_cache_memory_bytes": 1 << 20}, "nothing that is known here would help"),
    ],
)
def test_a_cpu_s_cache_that_holds_no_whole_sequence_is_refused_with_what_it_would_hold(
    engine: dict[str, Any], line: str, tmp_path: Path
) -> None:
    with pytest.raises(Failure, match=line):
        check_fit(fleet(checkpoint(tmp_path / "model", LLAMA_8B), engine=engine).models[0], machine())


def test_in_float32_a_cache_holds_half_as_much(tmp_path: Path) -> None:
    engine = {"kv_cache_memory_bytes": GIB, "max_model_len": 8192}
    model = fleet(checkpoint(tmp_path / "model", LLAMA_8B), engine=engine).models[0]
    check_fit(model, machine())
    with pytest.raises(Failure, match="does not fit"):
        check_fit(model, machine(avx512=False))


@pytest.mark.parametrize("engine", [{"max_model_len": "auto"}, {"max_model_len": -1}, {"max_num_seqs": "many"}])
def test_what_only_vllm_can_read_is_left_to_it(engine: dict[str, Any], tmp_path: Path) -> None:
    check_fit(fleet(checkpoint(tmp_path / "model", LLAMA_70B), engine=engine).models[0], machine(gpus=1))


def test_a_folder_without_a_known_shape_is_left_to_vllm(tmp_path: Path) -> None:
    check_fit(fleet(tmp_path).models[0], machine(gpus=1))


def test_on_a_gpu_only_what_weights_and_cache_alone_exceed_is_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model", LLAMA_70B)
    with pytest.raises(Failure, match=r"each holds 141\.1 GB of weights"):
        check_fit(fleet(folder, engine={"max_model_len": 8192}).models[0], machine(gpus=8))
    check_fit(fleet(folder, engine={"max_model_len": 8192}, tensor_parallel=2).models[0], machine(gpus=8))
