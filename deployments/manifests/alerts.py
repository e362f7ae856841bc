"""What should Prometheus read of a fleet, and when should somebody be told? Only metrics that routers export."""

from typing import Any

from deployments.fleet import Scaling
from deployments.manifests.names import COMPONENT, NAME, NODES, PART_OF, ROUTER, SERVE, labels, meta

ROUTERS = f"{NAME}-routers"
FAST, SLOW = 14.4, 6.0
"""How many times faster than allowed the month's share of missed requests is used up: 2 % of it in an hour, 5 % in six.
From Google's book on site reliability."""


def pod_monitors() -> list[dict[str, Any]]:
    """Routers by the port that answers requests; Ray's own numbers from every node."""
    nodes = {
        "matchLabels": {PART_OF: NAME},
        "matchExpressions": [{"key": COMPONENT, "operator": "In", "values": list(NODES)}],
    }
    return [
        _pod_monitor(ROUTERS, {"matchLabels": labels(ROUTER)}, SERVE),
        _pod_monitor(f"{NAME}-nodes", nodes, "metrics"),
    ]


def _pod_monitor(name: str, pods: dict[str, Any], port: str) -> dict[str, Any]:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": meta(name),
        "spec": {
            "selector": pods,
            "podMetricsEndpoints": [{"port": port, "path": "/metrics", "interval": "15s"}],
        },
    }


def rules(scaling: Scaling) -> dict[str, Any]:
    """Alerts, by what users would notice."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": meta(NAME),
        "spec": {"groups": [{"name": NAME, "rules": [*_targets(scaling), *_failures(), *_replicas()]}]},
    }


def _targets(scaling: Scaling) -> list[dict[str, Any]]:
    allowed = 1 - scaling.attainment
    wish = f"{scaling.attainment:.3%} should have their first token in {scaling.ttft_s:g} s and then one each "
    wish += f"{scaling.token_s:g} s."
    return [
        _alert(
            f"HeadraceMissesTargets{how}",
            f"{_missed(short)} > {_share(times, allowed)} and {_missed(long)} > {_share(times, allowed)}",
            for_="2m",
            severity=severity,
            summary="{{ $labels.model }}: {{ $value | humanizePercentage }} of requests miss the fleet's targets",
            description=f"Of all requests {wish} More replicas, or fewer tokens a request, would help.",
        )
        for how, short, long, times, severity in (
            ("Fast", "5m", "1h", FAST, "critical"),
            ("Slowly", "30m", "6h", SLOW, "warning"),
        )
    ]


def _share(times: float, allowed: float) -> str:
    """Of requests; where many may miss, between what is allowed and all."""
    return f"{min(times * allowed, (1 + allowed) / 2):.4g}"


def _missed(window: str) -> str:
    missed, ended = (f"sum by (model) (rate(headrace_{name}_total[{window}]))" for name in ("missed", "requests"))
    return f"{missed} / {ended}"


def _failures() -> list[dict[str, Any]]:
    failed = 'sum by (model) (rate(headrace_requests_total{outcome="failed"}[5m]))'
    ended = "sum by (model) (rate(headrace_requests_total[5m]))"
    refused = 'sum(rate(headrace_refusals_total{status=~"429|503"}[5m]))'
    return [
        _alert(
            "HeadraceNoRouter",
            f'absent(up{{job=~".*/{ROUTERS}"}} == 1)',
            for_="2m",
            severity="critical",
            summary="No router answers",
            description="Nobody gets in. Look at pods of the component router, and at Serve's state of `router`.",
        ),
        _alert(
            "HeadraceRequestsFail",
            f"{failed} / {ended} > 0.01",
            for_="5m",
            severity="critical",
            summary="{{ $labels.model }}: {{ $value | humanizePercentage }} of requests fail",
            description="Requests that were let in end with an error. The routers' logs name the replicas.",
        ),
        _alert(
            "HeadraceRefusesLoad",
            f"{refused} / (sum(rate(headrace_requests_total[5m])) + {refused}) > 0.05",
            for_="10m",
            severity="warning",
            summary="{{ $value | humanizePercentage }} of requests are refused for want of room",
            description="Queues are full. Are replicas at replicas.max, or pods pending?",
        ),
    ]


def _replicas() -> list[dict[str, Any]]:
    serving = "count by (model) (headrace_replica_draining == 0)"
    return [
        _alert(
            "HeadraceModelWithoutReplica",
            f"sum by (model) (headrace_queued_requests) > 0 unless on (model) {serving}",
            for_="5m",
            severity="critical",
            summary="{{ $labels.model }}: requests wait and no replica takes them",
            description="Is a pod pending for want of GPUs, or does the engine fail at its start?",
        ),
        _alert(
            "HeadraceReplicaStuck",
            "max by (model, replica) (headrace_replica_step_age_s) > 60",
            for_="1m",
            severity="critical",
            summary="{{ $labels.replica }} has work and has made no step for {{ $value | humanizeDuration }}",
            description="Its streams stand still. Serve ends an engine whose core is dead; this one hangs.",
        ),
        _alert(
            "HeadraceReplicaRests",
            "max by (model, replica) (headrace_replica_resting) == 1",
            for_="10m",
            severity="warning",
            summary="{{ $labels.replica }} fails requests and gets none, or one on trial",
            description="Its logs say why.",
        ),
        _alert(
            "HeadraceUnverified",
            "min by (model) (headrace_replica_verified) == 0",
            for_="10m",
            severity="info",
            summary="{{ $labels.model }} serves without reference numbers",
            description="It was checked against itself only. `headrace fetch` makes a reference for small models.",
        ),
    ]


def _alert(name: str, expression: str, *, for_: str, severity: str, **texts: str) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expression,
        "for": for_,
        "labels": {"severity": severity},
        "annotations": texts,
    }
