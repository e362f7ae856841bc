"""Does each alert fire when it should, and stay silent while all is well? Prometheus' own tool plays series through the
rules."""

import copy
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.k8s.built import one

REPLICA = 'model="m",replica="a"'
UP = {'up{job="headrace/headrace-routers"}': "1x240"}
"""Eight hours, a sample each two minutes: more than the longest look back."""


@dataclass(frozen=True)
class Case:
    """Series by name, and the alerts that they set off after eight hours."""

    name: str
    series: dict[str, str]
    fire: set[str]


def served(*, ok: int = 100, failed: int = 0, missed: int = 0, refused: int = 0) -> dict[str, str]:
    """Requests in two minutes."""
    return UP | {
        'headrace_requests_total{model="m",outcome="ok"}': f"0+{ok}x240",
        'headrace_requests_total{model="m",outcome="failed"}': f"0+{failed}x240",
        'headrace_missed_total{model="m"}': f"0+{missed}x240",
        'headrace_refusals_total{status="429"}': f"0+{refused}x240",
        'headrace_refusals_total{status="400"}': "0+100x240",
    }


def replica(*, resting: int = 0, verified: int = 1, step_age_s: int = 0, draining: int = 0) -> dict[str, str]:
    return {
        f"headrace_replica_resting{{{REPLICA}}}": f"{resting}x240",
        f"headrace_replica_verified{{{REPLICA}}}": f"{verified}x240",
        f"headrace_replica_step_age_s{{{REPLICA}}}": f"{step_age_s}x240",
        f"headrace_replica_draining{{{REPLICA}}}": f"{draining}x240",
    }


WAITING = {'headrace_queued_requests{model="m"}': "5x240"}
CASES = (
    Case("all is well", served(missed=1) | replica() | WAITING, set()),
    Case("nobody asks", UP | replica(), set()),
    Case("no router", {"headrace_other": "1x240"}, {"HeadraceNoRouter"}),
    Case("routers that don't answer", {'up{job="headrace/headrace-routers"}': "0x240"}, {"HeadraceNoRouter"}),
    Case("targets missed a little more than may be", served(missed=2), set()),
    Case("targets missed slowly", served(missed=8), {"HeadraceMissesTargetsSlowly"}),
    Case("targets missed fast", served(missed=30), {"HeadraceMissesTargetsSlowly", "HeadraceMissesTargetsFast"}),
    Case("failures", served(failed=3), {"HeadraceRequestsFail"}),
    Case("refusals for want of room", served(refused=20), {"HeadraceRefusesLoad"}),
    Case("requests wait without a replica", served() | WAITING, {"HeadraceModelWithoutReplica"}),
    Case("the only replica drains", served() | WAITING | replica(draining=1), {"HeadraceModelWithoutReplica"}),
    Case("an engine hangs", served() | replica(step_age_s=90), {"HeadraceReplicaStuck"}),
    Case("a replica rests", served() | replica(resting=1), {"HeadraceReplicaRests"}),
    Case("no reference", served() | replica(verified=0), {"HeadraceUnverified"}),
)


def played(case: Case, severity: dict[str, str]) -> dict[str, object]:
    """A case as promtool reads it."""
    return {
        "name": case.name,
        "interval": "2m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "alert_rule_test": [
            {
                "eval_time": "8h",
                "alertname": name,
                "exp_alerts": [labels(name, severity[name])] if name in case.fire else [],
            }
            for name in severity
        ],
    }


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus")
def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    groups = copy.deepcopy(one("overlays/production", "PrometheusRule")["spec"]["groups"])
    severity = {rule["alert"]: rule["labels"]["severity"] for rule in groups[0]["rules"]}
    for rule in groups[0]["rules"]:
        del rule["annotations"]  # texts with numbers in them
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    tests = [played(case, severity) for case in CASES]
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "5m", "tests": tests}))
    said = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr


def labels(name: str, severity: str) -> dict[str, dict[str, str]]:
    of_model = {} if name in ("HeadraceNoRouter", "HeadraceRefusesLoad") else {"model": "m"}
    of_replica = {"replica": "a"} if name in ("HeadraceReplicaStuck", "HeadraceReplicaRests") else {}
    return {"exp_labels": {"severity": severity} | of_model | of_replica}


def test_every_alert_has_a_case() -> None:
    (group,) = one("overlays/production", "PrometheusRule")["spec"]["groups"]
    assert {rule["alert"] for rule in group["rules"]} == set().union(*(case.fire for case in CASES))
