"""What does the long evidence say today? Runs tests marked `prove` and the benchmarks: docs/evidence/*.json.

A test hands its figures over with pytest's `record_property`. A benchmark writes a file of its own there.
"""

import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.machine_facts import machine_facts, versions

ROOT = Path(__file__).resolve().parent.parent
EVIDENCE = ROOT / "docs" / "evidence"
BENCHMARKS = ("serving_path", "compression_quality")


def main() -> None:
    """Runs all of it and writes it down, failures included; exit code 1 if there were any."""
    facts = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit()}
    facts |= {"machine": machine_facts(), "versions": versions()}
    parts = [prove_tests(), *(prove_benchmark(name) for name in BENCHMARKS)]
    EVIDENCE.mkdir(parents=True, exist_ok=True)
    target = EVIDENCE / "prove.json"
    target.write_text(json.dumps(facts | {"parts": parts}, indent=1) + "\n")
    for part in parts:
        print(f"{'failed' if part['exit_code'] else 'passed'} in {part['seconds']:.0f} s: {part['command']}")
    print(f"written: {target.relative_to(ROOT)}")
    sys.exit(any(part["exit_code"] for part in parts))


SETTINGS = ("-o", "junit_family=xunit1", "-o", "faulthandler_timeout=0")
"""Figures of tests are kept, and long ones have their own timeouts only."""


def prove_tests() -> dict:
    """Every test marked `prove`: its outcome, seconds and figures."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        part = run("-m", "pytest", "-m", "prove and not gpu", *SETTINGS, f"--junit-xml={report}")
        cases = ElementTree.parse(report).iter("testcase") if report.exists() else ()
        part["tests"] = [describe(case) for case in cases]
    part["command"] = 'python -m pytest -m "prove and not gpu"'
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
