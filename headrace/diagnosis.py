"""Why did a deployment not start? Serve's message, cut to the lines that a user can act on."""

import re
from typing import Any

OURS = "[headrace] "
"""Begins a line that the project's own code wrote for the user."""
EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Failed|Numbers)\b")
WRAPPER = "ray.exceptions.RayTaskError"
"""Begins Ray's wrapping of an exception that follows."""
WORKER_END = "Worker exit detail"
FAILED_START = "failed to start"


def failures(applications: dict[str, Any]) -> list[str]:
    """One line or more for each application or deployment that failed; empty while all is well."""
    return [line for application in applications.values() for line in _of_application(application)]


def causes(message: str) -> list[str]:
    """The lines for the user in one of Serve's messages: our own, else the exception, else the last line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    ours = [line.partition(OURS)[2] for line in lines if OURS in line]
    raised = [line for line in lines if EXCEPTION.match(line) and not line.startswith(WRAPPER)]
    died = [line for line in lines if WORKER_END in line]
    return list(dict.fromkeys(ours)) or (raised[-1:] + died[-1:]) or lines[-1:]


def states(applications: dict[str, Any]) -> str:
    """How many replicas of each deployment are in which state, in one line."""
    parts = [
        f"{name} {_count(deployment['replicas'])}"
        for application in applications.values()
        for name, deployment in sorted(application["deployments"].items())
    ]
    return ", ".join(parts)


def _of_application(application: dict[str, Any]) -> list[str]:
    failed = [
        f"{name}: {line}"
        for name, deployment in application["deployments"].items()
        if FAILED_START in deployment["message"] or deployment["status"] == "DEPLOY_FAILED"
        for line in causes(deployment["message"])
    ]
    if not failed and application["status"] == "DEPLOY_FAILED":
        return causes(application["message"])
    return failed


def _count(replicas: list[dict[str, Any]]) -> str:
    found = [replica["state"].lower() for replica in replicas]
    return " + ".join(f"{found.count(state)} {state}" for state in dict.fromkeys(found)) or "waiting"
