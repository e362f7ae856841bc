"""Who may talk to whom? Everything is refused that is not said here, in both directions."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from deployments.manifests.names import (
    AGENT,
    AGENT_GRPC,
    AUTOSCALER_METRICS,
    CLIENTS,
    COMPONENT,
    COMPRESS,
    DASHBOARD,
    DASHBOARD_METRICS,
    DRAWN,
    ENGINE,
    GCS,
    HEAD,
    METRICS,
    MONITORING_NAMESPACE,
    NAME,
    NODE_MANAGER,
    NODES,
    OBJECT_MANAGER,
    OPERATOR_NAMESPACE,
    PART_OF,
    ROUTER,
    SERVE,
    SUBMITTER,
    WORKERS,
    meta,
)

BETWEEN_NODES = (NODE_MANAGER, OBJECT_MANAGER, AGENT, AGENT_GRPC, WORKERS)
HTTPS, API_SERVER, POSTGRESQL = 443, 6443, 5432
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10")
"""Not on the way to a hub: other pods, other machines, and where clouds hand out credentials."""

Port = int | str | tuple[int, int]


def base() -> list[dict[str, Any]]:
    """The flows of every fleet."""
    return [
        _policy("deny-all", {}, ingress=[], egress=[]),
        _policy("names", {}, egress=[_dns()]),
        *_flow("nodes", NODES, NODES, *BETWEEN_NODES),
        *_flow("control", (ROUTER, ENGINE), (HEAD,), GCS),
        *_flow("link", (ROUTER,), (ENGINE,), DRAWN),
        *_flow("submission", (SUBMITTER,), (COMPRESS,), DASHBOARD),
        _policy("clients", _pods(ROUTER), ingress=[_from(_clients(), SERVE)]),
        _policy("operator", _pods(HEAD, COMPRESS), ingress=[_from([_operator()], DASHBOARD)]),
        # The API server's address is not known here.
        _policy("autoscaler", _pods(HEAD), egress=[{"ports": _ports(HTTPS, API_SERVER)}]),
        _policy("models", _pods(ROUTER, ENGINE, COMPRESS), egress=[_to([_internet()], HTTPS)]),
    ]


def between_ranks() -> list[dict[str, Any]]:
    """For engines that span machines: NCCL draws its ports."""
    return _flow("ranks", (ENGINE,), (ENGINE,), DRAWN)


def store(url: str) -> list[dict[str, Any]]:
    """For routers that keep decisions in a database, whose address is not known here."""
    return [_policy("store", _pods(ROUTER), egress=[{"ports": _ports(urlsplit(url).port or POSTGRESQL)}])]


def monitoring() -> list[dict[str, Any]]:
    """For Prometheus."""
    prometheus = [{"namespaceSelector": _is({"kubernetes.io/metadata.name": MONITORING_NAMESPACE})}]
    return [
        _policy("scrape-nodes", _pods(*NODES), ingress=[_from(prometheus, METRICS)]),
        _policy("scrape-head", _pods(HEAD), ingress=[_from(prometheus, AUTOSCALER_METRICS, DASHBOARD_METRICS)]),
        _policy("scrape-routers", _pods(ROUTER), ingress=[_from(prometheus, SERVE)]),
    ]


def _flow(name: str, sources: Sequence[str], targets: Sequence[str], *ports: Port) -> list[dict[str, Any]]:
    """Both ends of a flow within the namespace."""
    return [
        _policy(f"{name}-out", _pods(*sources), egress=[_to([{"podSelector": _pods(*targets)}], *ports)]),
        _policy(f"{name}-in", _pods(*targets), ingress=[_from([{"podSelector": _pods(*sources)}], *ports)]),
    ]


def _policy(name: str, pods: dict[str, Any], **rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta(f"{NAME}-{name}"),
        "spec": {"podSelector": pods, "policyTypes": [direction.title() for direction in rules]} | rules,
    }


def _from(peers: list[dict[str, Any]], *ports: Port) -> dict[str, Any]:
    return {"from": peers, "ports": _ports(*ports)}


def _to(peers: list[dict[str, Any]], *ports: Port) -> dict[str, Any]:
    return {"to": peers, "ports": _ports(*ports)}


def _ports(*ports: Port) -> list[dict[str, Any]]:
    return [
        {"protocol": "TCP", "port": port[0], "endPort": port[1]}
        if isinstance(port, tuple)
        else {"protocol": "TCP", "port": port}
        for port in ports
    ]


def _pods(*components: str) -> dict[str, Any]:
    chosen = [{"key": COMPONENT, "operator": "In", "values": list(components)}]
    return {"matchLabels": {PART_OF: NAME}, "matchExpressions": chosen}


def _is(labels: dict[str, str]) -> dict[str, Any]:
    return {"matchLabels": labels}


def _clients() -> list[dict[str, Any]]:
    return [{"namespaceSelector": _is({CLIENTS: "true"})}, {"podSelector": _is({CLIENTS: "true"})}]


def _operator() -> dict[str, Any]:
    return {
        "namespaceSelector": _is({"kubernetes.io/metadata.name": OPERATOR_NAMESPACE}),
        "podSelector": _is({COMPONENT: "kuberay-operator"}),
    }


def _internet() -> dict[str, Any]:
    return {"ipBlock": {"cidr": "0.0.0.0/0", "except": list(PRIVATE)}}


def _dns() -> dict[str, Any]:
    return {
        "to": [
            {
                "namespaceSelector": _is({"kubernetes.io/metadata.name": "kube-system"}),
                "podSelector": _is({"k8s-app": "kube-dns"}),
            }
        ],
        "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")],
    }
