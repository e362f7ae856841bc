"""Is everything there that serving needs? Findings of the checks, shown with the way out."""

import sys

from rich.console import Console
from rich.text import Text

from headrace.doctor_machine import machine_findings
from headrace.doctor_packages import package_findings
from headrace.doctor_runs import run_findings
from headrace.finding import Finding, Level

SHOWN = {Level.OK: ("ok  ", "green"), Level.WARN: ("warn", "yellow"), Level.FAIL: ("FAIL", "red")}


def doctor() -> None:
    """Prints each finding. Exits with 1 when one of them keeps serving from working."""
    console = Console(highlight=False)
    findings = [*package_findings(), *machine_findings(), *run_findings()]
    for finding in findings:
        word, colour = SHOWN[finding.level]
        console.print(Text(word, colour), Text(_line(finding)), soft_wrap=True)
    if any(finding.level is Level.FAIL for finding in findings):
        sys.exit(1)


def _line(finding: Finding) -> str:
    return f"{finding.subject}: {finding.text}" + (f" -> {finding.way_out}" if finding.way_out else "")
