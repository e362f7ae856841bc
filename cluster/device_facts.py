"""What do makers say of the devices that people serve on, and which of them does this machine have?

Operations are dense: data sheets print twice as many, for weights of which half are zero. They are those of tensor
cores that add in float32; fp32 is that of the plain ones. Memory is what the driver reports, with error correction on:
less than the name says.
"""

import re
from difflib import get_close_matches

from cluster.devices import Device
from cluster.inventory import Machine

GB = 1e9
TERA = 1e12
MIB = 2**20


class UnknownDevice(ValueError):
    """A name that is no device's; its text names the nearest."""


def _gpu(
    name: str,
    memory_mib: int,
    bandwidth_gb: float,
    tera: dict[str, float],
    link_gb: float,
    capability: str,
    source: str,
) -> Device:
    return Device(
        name=name,
        memory_bytes=memory_mib * MIB,
        bandwidth_bytes_per_s=bandwidth_gb * GB,
        flops={dtype: rate * TERA for dtype, rate in tera.items()},
        link_bytes_per_s=link_gb * GB,
        capability=capability,
        source=source,
    )


A100 = {"fp32": 19.5, "bf16": 312.0, "int8": 624.0}
HOPPER = {"fp32": 67.0, "bf16": 989.5, "fp8": 1979.0, "int8": 1979.0}
A100_SHEET = "NVIDIA A100 Tensor Core GPU datasheet, https://www.nvidia.com/en-us/data-center/a100/"
H100_SHEET = "NVIDIA H100 Tensor Core GPU datasheet, https://www.nvidia.com/en-us/data-center/h100/"
PCIE_4, PCIE_5 = 32.0, 64.0
"""GB/s of 16 lanes, one direction."""

DEVICES: tuple[Device, ...] = (
    _gpu(
        "a10g",
        23028,
        600.0,
        {"fp32": 35.0, "bf16": 70.0, "int8": 140.0},
        PCIE_4,
        "8.6",
        "NVIDIA A10G datasheet, https://d1.awsstatic.com/product-marketing/ec2/NVIDIA_AWS_A10G_DataSheet_FINAL_02_17_2022.pdf",
    ),
    _gpu(
        "l4",
        23034,
        300.0,
        {"fp32": 30.3, "bf16": 121.0, "fp8": 242.5, "int8": 242.5},
        PCIE_4,
        "8.9",
        "NVIDIA L4 Tensor Core GPU datasheet, https://www.nvidia.com/en-us/data-center/l4/",
    ),
    _gpu(
        "l40s",
        46068,
        864.0,
        {"fp32": 91.6, "bf16": 362.05, "fp8": 733.0, "int8": 733.0},
        PCIE_4,
        "8.9",
        "NVIDIA L40S datasheet, https://www.nvidia.com/en-us/data-center/l40s/",
    ),
    _gpu("a100-40gb", 40960, 1555.0, A100, 300.0, "8.0", A100_SHEET),
    _gpu("a100-80gb", 81920, 2039.0, A100, 300.0, "8.0", A100_SHEET),
    _gpu("h100", 81559, 3350.0, HOPPER, 450.0, "9.0", H100_SHEET),
    # Two cards may have a bridge of 300 GB/s; more than two meet over PCIe.
    _gpu(
        "h100-pcie",
        81559,
        2000.0,
        {"fp32": 51.0, "bf16": 756.5, "fp8": 1513.0, "int8": 1513.0},
        PCIE_5,
        "9.0",
        H100_SHEET,
    ),
    _gpu(
        "h200",
        143771,
        4800.0,
        HOPPER,
        450.0,
        "9.0",
        "NVIDIA H200 Tensor Core GPU datasheet, https://www.nvidia.com/en-us/data-center/h200/",
    ),
    _gpu(
        "b200",
        183359,
        8000.0,
        {"fp32": 80.0, "bf16": 2250.0, "fp8": 4500.0, "int8": 4500.0, "fp4": 9000.0},
        900.0,
        "10.0",
        "NVIDIA Blackwell Architecture Technical Brief (HGX B200), "
        "https://resources.nvidia.com/en-us-blackwell-architecture",
    ),
    # Seven links to the other seven of a machine, 64 GB/s each.
    _gpu(
        "mi300x",
        196592,
        5300.0,
        {"fp32": 163.4, "bf16": 1307.4, "fp8": 2614.9, "int8": 2614.9},
        448.0,
        "gfx942",
        "AMD Instinct MI300X Accelerator data sheet, https://www.amd.com/en/products/accelerators/instinct/mi300/mi300x.html",
    ),
    _gpu(
        "rtx-4090",
        24564,
        1008.0,
        {"fp32": 82.6, "bf16": 165.2, "fp8": 330.3, "int8": 660.6},
        PCIE_4,
        "8.9",
        "NVIDIA Ada GPU Architecture whitepaper, appendix A, https://www.nvidia.com/en-us/geforce/graphics-cards/40-series/rtx-4090/",
    ),
    # The Workstation Edition; Max-Q has the same memory and half the power.
    _gpu(
        "rtx-pro-6000",
        97887,
        1792.0,
        {"fp32": 126.0, "bf16": 503.8, "fp8": 1007.6, "int8": 1007.6, "fp4": 2015.2},
        PCIE_5,
        "12.0",
        "NVIDIA RTX Blackwell PRO GPU Architecture whitepaper, "
        "https://www.nvidia.com/en-us/products/workstations/professional-desktop-gpus/rtx-pro-6000/",
    ),
    # Its data sheet has 120 TFLOPS of fp32 and none of the narrow dtypes: those are the other edition's, at its clock.
    _gpu(
        "rtx-pro-6000-server",
        97887,
        1597.0,
        {"fp32": 120.0, "bf16": 479.8, "fp8": 959.6, "int8": 959.6, "fp4": 1919.2},
        PCIE_5,
        "12.0",
        "NVIDIA RTX PRO 6000 Blackwell Server Edition datasheet, "
        "https://www.nvidia.com/en-us/data-center/rtx-pro-6000-blackwell-server-edition/",
    ),
    # Stands for any device of 4 GB. Its memory is the whole system's, Linux and the driver take a part of it; it is
    # mostly alone in its machine, and its link is that of 4 lanes of PCIe 3. 512 cores and 16 tensor cores at 625 MHz.
    _gpu(
        "jetson-orin-nano-4gb",
        4096,
        34.0,
        {"fp32": 0.64, "bf16": 5.0, "int8": 10.0},
        3.9,
        "8.7",
        "NVIDIA Jetson Orin Nano Series data sheet, https://developer.nvidia.com/embedded/jetson-modules",
    ),
)
BY_NAME = {device.name: device for device in DEVICES}

ALIASES = {
    "h100sxm": "h100",
    "h10080gb": "h100",
    "h100sxm580gb": "h100",
    "a100sxm440gb": "a100-40gb",
    "a10040": "a100-40gb",
    "a100sxm480gb": "a100-80gb",
    "a10080": "a100-80gb",
    "4090": "rtx-4090",
    "geforcertx4090": "rtx-4090",
    "rtxpro6000blackwell": "rtx-pro-6000",
    "jetsonorinnano": "jetson-orin-nano-4gb",
    "4gb": "jetson-orin-nano-4gb",
}
"""What else people write, without case and punctuation."""

DRIVER_NAMES = {
    "nvidia a10g": "a10g",
    "nvidia l4": "l4",
    "nvidia l40s": "l40s",
    "nvidia a100-sxm4-40gb": "a100-40gb",
    "nvidia a100-sxm4-80gb": "a100-80gb",
    "nvidia h100 80gb hbm3": "h100",
    "nvidia h100 pcie": "h100-pcie",
    "nvidia h200": "h200",
    "nvidia b200": "b200",
    "amd instinct mi300x": "mi300x",
    "nvidia geforce rtx 4090": "rtx-4090",
    "nvidia rtx pro 6000 blackwell workstation edition": "rtx-pro-6000",
    "nvidia rtx pro 6000 blackwell server edition": "rtx-pro-6000-server",
}
"""Whole names only: an RTX 4090 D, an H100 NVL or an A100 PCIe is another device."""

LISTED = re.compile(r"GPU \d+: (.+?)(?: \(UUID: .+\))?")
"""A line of `nvidia-smi -L`."""


def find(name: str) -> Device:
    """The device that is meant by a name, whatever its case and punctuation. Raises UnknownDevice."""
    plain = _plain(name)
    known = {_plain(device): device for device in BY_NAME} | ALIASES
    if plain in known:
        return BY_NAME[known[plain]]
    if several := [device for device in BY_NAME if plain and _plain(device).startswith(plain)]:
        raise UnknownDevice(f"{name!r} may be {' or '.join(several)}: which one?")
    close = get_close_matches(plain, known, n=1)
    nearest = f"did you mean {known[close[0]]}? " if close else ""
    raise UnknownDevice(f"no device is known as {name!r}: {nearest}(known: {', '.join(BY_NAME)})")


def of_driver(line: str) -> Device | None:
    """The device of a line that `nvidia-smi -L` prints, or of a name alone; None where its facts aren't known."""
    listed = LISTED.fullmatch(line.strip())
    name = DRIVER_NAMES.get((listed[1] if listed else line.strip()).lower())
    return BY_NAME[name] if name else None


CLOCK_HZ = 2.5e9
"""Of a server's core while its vector units work; the kernel's figures differ by machine and are often hidden."""
CORE_BANDWIDTH = 10 * GB
"""Of memory, by one core alone: 8 to 15 GB/s on servers of the last years."""
MACHINE_BANDWIDTH = 200 * GB
"""Of all cores together: 8 channels of DDR4-3200 have 205 GB/s."""


def this_cpu(machine: Machine) -> Device:
    """A machine's CPU, by estimate: vector width times two units times a clock. `headrace calibrate` measures it."""
    bandwidth = min(machine.cores * CORE_BANDWIDTH, MACHINE_BANDWIDTH)
    return Device(
        name="cpu",
        memory_bytes=machine.memory_bytes,
        bandwidth_bytes_per_s=bandwidth,
        flops={dtype: each * machine.cores * CLOCK_HZ for dtype, each in _per_cycle(machine.cpu_features).items()},
        # Ranks on one machine exchange through its memory: written once, read once.
        link_bytes_per_s=bandwidth / 2,
        capability="cpu",
        source=f"estimated from {machine.cores} cores with {_level(machine.cpu_features)}, not from a data sheet",
    )


def _per_cycle(features: frozenset[str]) -> dict[str, float]:
    """Operations of a core in a cycle: lanes * 2 (multiply, add) * 2 units.

    AVX-512 counts as AVX2, since many cores do it in two halves. bf16 and int8 without instructions of their own are
    computed in float32. AMX: 16 x 16 results of 64-byte rows in 16 cycles (Intel 64 optimization manual, chapter 20).
    """
    wide = "avx2" in features or "avx512f" in features
    fp32 = 32.0 if wide else 16.0
    bf16 = 2 * fp32 if features & {"avx512_bf16", "bf16"} else fp32
    int8 = 4 * fp32 if features & {"avx512_vnni", "avx_vnni", "i8mm"} else fp32
    if "amx_bf16" in features:
        bf16 = 1024.0
    if "amx_int8" in features:
        int8 = 2048.0
    return {"fp32": fp32, "bf16": bf16, "int8": int8}


def _level(features: frozenset[str]) -> str:
    levels = {"AMX": "amx_tile", "AVX-512": "avx512f", "AVX2": "avx2", "NEON": "asimd"}
    return next((level for level, feature in levels.items() if feature in features), "no vector unit that is known")


def here(machine: Machine) -> Device | None:
    """What engines on this machine run on: its first GPU, or its CPU where it has none; None for an unknown GPU."""
    return of_driver(machine.gpus[0]) if machine.gpus else this_cpu(machine)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower()).removeprefix("nvidia").removeprefix("amdinstinct")
