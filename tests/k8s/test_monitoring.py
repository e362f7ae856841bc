"""Do alerts and dashboard ask for what routers export, in words that Prometheus and Grafana understand?"""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from autoscaling import Targets
from deployments.fleet import Scaling
from deployments.manifests import alerts
from deployments.router_metrics import RouterMetrics
from headrace.observe import samples
from tests.deployments.decision_entries import entry
from tests.deployments.lane_ends import Engine, make_door, turn
from tests.k8s.built import K8S, every, one, pods

PRODUCTION = "overlays/production"
OF_PROMETHEUS = {"up"}


def alert_expressions() -> list[str]:
    (group,) = one(PRODUCTION, "PrometheusRule")["spec"]["groups"]
    return [rule["expr"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return json.loads((K8S / PRODUCTION / "dashboard.json").read_text())


def panel_expressions() -> list[str]:
    return [target["expr"].replace("$model", ".*") for panel in dashboard()["panels"] for target in panel["targets"]]


def selectors(node: Any) -> Iterator[Any]:
    """Every selector of a parsed expression."""
    match node:
        case promql_parser.VectorSelector():
            yield node
        case promql_parser.MatrixSelector():
            yield node.vector_selector
        case _:
            inner = [getattr(node, name, None) for name in ("lhs", "rhs", "expr", "param")]
            for child in [*inner, *getattr(node, "args", [])]:
                if child is not None:
                    yield from selectors(child)


async def exported() -> dict[str, set[str]]:
    """The samples of a router that has served, by name, with their labels."""
    door, metrics = make_door(), RouterMetrics(Targets())
    engine = Engine(door.lane)
    await engine.frame()
    door.enter()
    await turn()
    metered = metrics.watch("m", 10)
    metered.tokens(1)
    metered.tokens(3)
    metered.end("ok")
    metrics.watch("m", 10).end("failed")
    metrics.refused(429)
    metrics.scaling.decided([entry(1.0, 2)])
    return {sample.name: set(sample.labels) for sample in samples(metrics.text([door.lane]).decode())}


@pytest.mark.parametrize("expression", [*alert_expressions(), *panel_expressions()])
def test_an_expression_asks_for_metrics_and_labels_that_routers_export(expression: str) -> None:
    has = asyncio.run(exported())
    asked = list(selectors(promql_parser.parse(expression)))
    assert asked
    for selector in asked:
        assert selector.name in has or selector.name in OF_PROMETHEUS
        if selector.name in has:
            assert {matcher.name for matcher in selector.matchers.matchers} <= has[selector.name]
            grouped = set(re.findall(r"by \(([^)]*)\)", expression)) if len(asked) == 1 else set()
            assert {label.strip() for labels in grouped for label in labels.split(",")} <= has[selector.name]


def test_prometheus_finds_routers_and_nodes_by_ports_that_their_pods_name() -> None:
    of_router, of_nodes = every(PRODUCTION, "PodMonitor")
    ports = {
        pod["metadata"]["name"]: {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
        for pod in pods(PRODUCTION)
    }
    assert [each["port"] for each in of_router["spec"]["podMetricsEndpoints"]] == ["serve"]
    assert [name for name, named in ports.items() if "serve" in named] == ["routers"]
    (port,) = (each["port"] for each in of_nodes["spec"]["podMetricsEndpoints"])
    assert all(port in named for named in ports.values())
    assert f".*/{of_router['metadata']['name']}" in "".join(alert_expressions())


@pytest.mark.parametrize("attainment", [0.999, 0.99, 0.9, 0.5])
def test_alerts_on_targets_can_fire_and_stay_silent_while_targets_are_met(attainment: float) -> None:
    (group,) = alerts.rules(Scaling(attainment=attainment))["spec"]["groups"]
    for rule in group["rules"][:2]:
        for threshold in re.findall(r"> ([\d.e-]+)", rule["expr"]):
            assert 1 - attainment < float(threshold) < 1


def test_grafana_finds_the_dashboard() -> None:
    found = one(PRODUCTION, "ConfigMap", "headrace-dashboard")
    assert found["metadata"]["labels"] == {"grafana_dashboard": "1"}
    panels = json.loads(found["data"]["dashboard.json"])["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 8
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus")
def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": one(PRODUCTION, "PrometheusRule")["spec"]["groups"]}))
    said = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
