"""What does the long evidence say? Runs tests marked `prove` and the benchmarks: docs/evidence/*.json.

`python scripts/prove.py [FILE-OF-TESTS|BENCHMARK ...]`: hours for all of it; each part says when and of what it is.

A test hands its figures over with pytest's `record_property`. A benchmark writes a file of its own there.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.machine_facts import circumstances

ROOT = Path(__file__).resolve().parent.parent
EVIDENCE = ROOT / "docs" / "evidence"
TARGET = EVIDENCE / "prove.json"
BENCHMARKS = (
    "serving_path",
    "compression_quality",
    "distil_workers",
    "simulation_cost",
    "batch_order",
    "batch_beside",
    "offline_batch",
)


def main() -> None:
    """Proves the parts that are named, or all; each is written down as it ends, failures too; exit code 1 for those."""
    parts = sys.argv[1:] or [*test_files(), *BENCHMARKS]
    failed = [name for name in parts if prove(name)["exit_code"]]
    for name in failed:
        print(f"failed: {name}")
    print(f"written: {TARGET.relative_to(ROOT)}")
    sys.exit(bool(failed))


def prove(name: str) -> dict:
    """One part, a file of tests or a benchmark: what came of it, which is kept beside the other parts."""
    part = circumstances() | {"commit": commit()} | (prove_benchmark(name) if name in BENCHMARKS else prove_tests(name))
    kept = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    EVIDENCE.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(json.dumps(kept | {name: part}, indent=1, sort_keys=True) + "\n")
    print(f"{'failed' if part['exit_code'] else 'passed'} in {part['seconds']:.0f} s: {part['command']}", flush=True)
    return part


def test_files() -> list[str]:
    """Files with tests that this machine can prove."""
    listing = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-m", CHOICE]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [line.partition(":")[0] for line in listed.splitlines() if line.startswith("tests/")]


CHOICE = "prove and not gpu"
SETTINGS = ("-o", "junit_family=xunit1", "-o", "faulthandler_timeout=0")
"""Figures of tests are kept, and long ones have their own timeouts only."""


def prove_tests(file: str) -> dict:
    """Every test marked `prove` in a file: its outcome, seconds and figures."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        part = run("-m", "pytest", "-m", CHOICE, *SETTINGS, f"--junit-xml={report}", file)
        cases = ElementTree.parse(report).iter("testcase") if report.exists() else ()
        part["tests"] = [describe(case) for case in cases]
    part["command"] = f'python -m pytest -m "{CHOICE}" {file}'
    return part


def describe(case: ElementTree.Element) -> dict:
    """One test of pytest's XML report."""
    bad = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), None)
    return {
        "test": f"{case.get('classname')}::{case.get('name')}",
        "outcome": bad or "passed",
        "seconds": float(case.get("time", 0)),
        "figures": {item.get("name"): item.get("value") for item in case.iter("property")},
    }


def prove_benchmark(name: str) -> dict:
    """One benchmark, which writes its own figures."""
    target = EVIDENCE / f"{name}.json"
    part = run("-m", f"benchmarks.{name}", "--output", str(target.relative_to(ROOT)))
    return part | {"figures": target.name}


def run(*arguments: str) -> dict:
    """Runs this Python with arguments, its output shown."""
    started_s = time.monotonic()
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT)
    return {
        "command": " ".join(["python", *arguments]),
        "exit_code": done.returncode,
        "seconds": time.monotonic() - started_s,
    }


def commit() -> str:
    """The commit that is checked out, marked where files differ from it; "unknown" outside a checkout."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True
    )
    return described.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
