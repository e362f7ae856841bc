"""What can't work is refused before anything is started, with figures."""

import json
import socket
import struct
from pathlib import Path

import pytest

from cluster.inventory import Machine, cpu_features
from deployments.fleet import Fleet, RouterSettings, validate
from headrace.checks import check_hardware, check_port, memory_need_bytes
from headrace.failure import Failure

GB = 10**9


def machine(*, cores: int = 4, available_gb: float = 64, gpus: int = 0, avx512: bool = True) -> Machine:
    return Machine(
        cores=cores,
        memory_bytes=64 * GB,
        available_bytes=int(available_gb * GB),
        gpus=tuple(f"GPU {i}" for i in range(gpus)),
        cpu_features=frozenset({"avx2", "avx512f"} if avx512 else {"avx2"}),
    )


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder with 100 million bfloat16 parameters, most of which the file system does not store."""
    header = {"w": {"dtype": "BF16", "shape": [10_000, 10_000], "data_offsets": [0, 200_000_000]}}
    text = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + 200_000_000)
    return tmp_path


def fleet(source: Path | str = "tiny", **fields: object) -> Fleet:
    return validate({"models": [{"name": "one", "source": str(source)} | fields]})


def test_memory_is_weights_and_cache_and_processes(checkpoint: Path) -> None:
    plain = fleet(checkpoint, engine={"kv_cache_memory_bytes": GB}).models[0]
    need = memory_need_bytes(plain, avx512=True)
    assert need == pytest.approx(0.2 * GB + GB + 3 * 0.7 * GB, abs=1000)
    assert memory_need_bytes(plain, avx512=False) - need == pytest.approx(0.2 * GB, abs=1000)
    split = fleet(checkpoint, engine={"kv_cache_memory_bytes": GB}, tensor_parallel=2).models[0]
    assert memory_need_bytes(split, avx512=True) - need == pytest.approx(1.7 * GB, abs=1000)


def test_too_little_memory_says_by_how_much_and_what_to_do(checkpoint: Path) -> None:
    wish = fleet(checkpoint, engine={"kv_cache_memory_bytes": GB}, replicas={"min": 2, "max": 2})
    check_hardware(wish, machine(available_gb=6.7))
    with pytest.raises(Failure, match=r"too little memory by 1\.1 GB: one 6\.6 GB needed, 5\.5 GB available"):
        check_hardware(wish, machine(available_gb=5.5))
    check_hardware(wish, machine(available_gb=5.5, gpus=2))


@pytest.mark.parametrize(
    ("fields", "found", "line"),
    [
        ({"engine": {"kv_cache_memory_bytes": "4G"}}, machine(), "should be a number of bytes, got '4G'"),
        ({"nodes": 2, "pipeline_parallel": 2}, machine(gpus=8), "nodes must be 1 here"),
        ({"tensor_parallel": 4}, machine(gpus=2), "0 of 1 replicas.*takes 4 GPU.*left are this machine 2 GPU"),
        ({"replicas": {"min": 3, "max": 3}}, machine(gpus=2), "2 of 3 replicas.*left are this machine 0 GPU"),
        ({"engine": {"data_parallel_size": 3}}, machine(gpus=2), "each takes 3 GPU"),
        ({"tensor_parallel": 3, "replicas": {"min": 0}}, machine(gpus=2), "each takes 3 GPU"),
        ({"tensor_parallel": 8}, machine(cores=4), "is 8, this machine has 4 CPU cores"),
    ],
)
def test_too_few_devices_is_the_users_mistake(fields: dict[str, object], found: Machine, line: str) -> None:
    with pytest.raises(Failure, match=line) as refused:
        check_hardware(fleet(**fields), found)
    assert refused.value.exit_code == 2


def test_models_share_the_gpus_of_the_machine() -> None:
    two = validate({"models": [{"name": name, "source": "tiny"} for name in ("one", "two")]})
    check_hardware(two, machine(gpus=2))
    with pytest.raises(Failure, match="two: room for 0 of 1 replicas beside the routers, one"):
        check_hardware(two, machine(gpus=1))


def test_a_free_port_passes_and_one_in_use_names_its_holder() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        router = RouterSettings(port=holder.getsockname()[1])
        holder.listen()
        with pytest.raises(Failure, match=r"in use by pid \d+ \("):
            check_port(router)
    check_port(router)


def test_a_feature_counts_if_every_core_has_it() -> None:
    assert cpu_features("flags\t: fpu avx2 avx512f\n\nflags\t: fpu avx2\n") == {"fpu", "avx2"}
    assert cpu_features("Features\t: asimd\n") == {"asimd"}
    assert cpu_features("") == frozenset()
