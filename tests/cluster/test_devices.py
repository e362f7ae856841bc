"""Is the device found that is meant, and do its facts hold together?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.device_facts import BY_NAME, DEVICES, DRIVER_NAMES, UnknownDevice, find, here, of_driver, this_cpu
from cluster.devices import Device
from cluster.inventory import Machine

UUID = "(UUID: GPU-5c1e2f6a-0000-0000-0000-000000000000)"
devices = st.sampled_from(DEVICES)


def a_machine(cores: int = 4, *, gpus: tuple[str, ...] = (), features: frozenset[str] = frozenset({"avx2"})) -> Machine:
    return Machine(cores=cores, memory_bytes=2**34, available_bytes=2**33, gpus=gpus, cpu_features=features)


@given(devices, st.sampled_from(["-", "_", " ", ""]), st.booleans())
def test_a_name_is_found_whatever_its_case_and_punctuation(device: Device, mark: str, is_upper: bool) -> None:
    typed = device.name.replace("-", mark)
    assert find(typed.upper() if is_upper else typed) == device


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("NVIDIA H100", "h100"),
        ("H100 SXM", "h100"),
        ("H100-PCIe", "h100-pcie"),
        ("RTX4090", "rtx-4090"),
        ("RTX PRO 6000 Blackwell", "rtx-pro-6000"),
        ("A100 80GB", "a100-80gb"),
        ("AMD Instinct MI300X", "mi300x"),
        ("4 GB", "jetson-orin-nano-4gb"),
    ],
)
def test_people_write_names_in_many_ways(typed: str, meant: str) -> None:
    assert find(typed).name == meant


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(UnknownDevice, match=r"no device is known as 'h10': did you mean h100\?|'h10' may be h100"):
        find("h10")
    with pytest.raises(UnknownDevice, match=r"'L50S': did you mean l40s\? \(known: a10g, l4, "):
        find("L50S")
    with pytest.raises(UnknownDevice, match="known: a10g"):
        find("")


def test_a_name_of_two_devices_is_asked_back() -> None:
    with pytest.raises(UnknownDevice, match="'A100' may be a100-40gb or a100-80gb: which one"):
        find("A100")


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        (f"GPU 0: NVIDIA H100 80GB HBM3 {UUID}", "h100"),
        (f"GPU 7: NVIDIA A100-SXM4-40GB {UUID}", "a100-40gb"),
        (f"GPU 0: NVIDIA GeForce RTX 4090 {UUID}", "rtx-4090"),
        (f"GPU 0: NVIDIA RTX PRO 6000 Blackwell Server Edition {UUID}", "rtx-pro-6000-server"),
        (f"GPU 0: NVIDIA RTX PRO 6000 Blackwell Workstation Edition {UUID}", "rtx-pro-6000"),
        ("NVIDIA L4", "l4"),
        (f"GPU 0: NVIDIA GeForce RTX 4090 D {UUID}", None),
        (f"GPU 0: NVIDIA H100 NVL {UUID}", None),
        (f"GPU 0: NVIDIA A100 80GB PCIe {UUID}", None),
        ("", None),
    ],
)
def test_a_driver_s_line_is_one_device_or_none(line: str, meant: str | None) -> None:
    found = of_driver(line)
    assert (found.name if found else None) == meant


def test_every_driver_s_name_leads_to_facts() -> None:
    assert set(DRIVER_NAMES.values()) <= set(BY_NAME)
    assert len(BY_NAME) == len(DEVICES)


@given(devices)
def test_facts_hold_together(device: Device) -> None:
    """Dense operations double as the dtype halves; the sparse figures of a data sheet would break that chain."""
    assert device.name == device.name.lower()
    assert " " not in device.name
    assert "https://" in device.source
    assert device.memory_bytes % 2**20 == 0
    assert device.link_bytes_per_s < device.bandwidth_bytes_per_s
    assert device.flops["fp32"] <= device.flops["bf16"] / 2
    for narrow, wide in (("fp8", "bf16"), ("fp4", "fp8")):
        if narrow in device.flops:
            assert device.flops[narrow] == pytest.approx(2 * device.flops[wide], rel=0.03)
    # Bytes of memory, in seconds: every device reads all it has within a fifth of a second.
    assert 0.015 < device.memory_bytes / device.bandwidth_bytes_per_s < 0.2


def test_a_machine_s_first_gpu_is_what_engines_run_on() -> None:
    found = here(a_machine(gpus=(f"GPU 0: NVIDIA L4 {UUID}",)))
    assert found == BY_NAME["l4"]
    assert here(a_machine(gpus=(f"GPU 0: NVIDIA T4 {UUID}",))) is None


def test_without_a_gpu_it_is_the_cpu_and_says_that_its_figures_are_estimates() -> None:
    found = here(a_machine(cores=2))
    assert found is not None
    assert (found.name, found.capability, found.memory_bytes) == ("cpu", "cpu", 2**34)
    assert found.source == "estimated from 2 cores with AVX2, not from a data sheet"


@given(st.integers(1, 256), st.sampled_from([{"avx2"}, {"avx2", "avx512f", "avx512_bf16", "avx512_vnni"}, {"asimd"}]))
def test_more_cores_are_never_slower(cores: int, features: set[str]) -> None:
    few, many = (this_cpu(a_machine(count, features=frozenset(features))) for count in (cores, cores + 1))
    assert many.bandwidth_bytes_per_s >= few.bandwidth_bytes_per_s
    assert all(many.flops[dtype] > few.flops[dtype] for dtype in few.flops)


def test_instructions_for_short_dtypes_count() -> None:
    plain = this_cpu(a_machine())
    amx = this_cpu(a_machine(features=frozenset({"avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"})))
    assert plain.flops["bf16"] == plain.flops["fp32"]
    assert amx.flops["bf16"] > 10 * amx.flops["fp32"]
    assert "AMX" in amx.source
