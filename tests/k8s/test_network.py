"""Who may talk to whom? Reckoned from the policies, as a network plugin would."""

import ipaddress
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.k8s.built import OVERLAYS, Resource, every, one, pods

HERE, DNS_NAMESPACE = "headrace", "kube-system"
POD_LINK_PORT = 40000
"""One of those that the kernel draws."""


@dataclass(frozen=True)
class Peer:
    """An end of a connection: a pod, or an address outside."""

    name: str
    namespace: str | None = None
    namespace_labels: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    address: str | None = None


def pod_of(resource: Resource) -> Peer:
    meta = resource["metadata"]
    named = {port["name"]: port["containerPort"] for each in resource["spec"]["containers"] for port in _ports(each)}
    return Peer(meta["labels"]["app.kubernetes.io/component"], HERE, _named(HERE), meta["labels"], named)


def _ports(container: Resource) -> list[Resource]:
    return container.get("ports", [])


def _named(namespace: str) -> dict[str, str]:
    return {"kubernetes.io/metadata.name": namespace}


def inside(place: str) -> dict[str, Peer]:
    """Pods of the fleet and of the job that compresses."""
    found = [pod_of(pod) for pod in pods(f"overlays/{place}")]
    job = [pod_of(pod) for pod in pods("compress")]
    return {peer.name: peer for peer in [*found, *job]}


OPERATOR = {"app.kubernetes.io/component": "kuberay-operator"}
OUTSIDE = (
    Peer("client pod", HERE, _named(HERE), {"headrace.io/clients": "true"}),
    Peer("client namespace", "shop", _named("shop") | {"headrace.io/clients": "true"}),
    Peer("stranger", "shop", _named("shop")),
    Peer("stranger here", HERE, _named(HERE)),
    Peer("operator", "kuberay-system", _named("kuberay-system"), OPERATOR),
    Peer("false operator", "shop", _named("shop"), OPERATOR),
    Peer("prometheus", "monitoring", _named("monitoring")),
    Peer("dns", DNS_NAMESPACE, _named(DNS_NAMESPACE), {"k8s-app": "kube-dns"}),
    Peer("hub", address="93.184.216.34"),
    Peer("API server", address="10.96.0.1"),
    Peer("cloud credentials", address="169.254.169.254"),
)
PORTS = (
    *(53, 443, 6443, 22),
    *(6379, 8265, 10001),
    *(6385, 6386, 52365, 52366, 10002, 19999),
    *(8000, 8080, 44217, 44227),
    *(32767, 32768, POD_LINK_PORT, 43999, 44000),
)
NODE_PORTS = (6385, 6386, 52365, 52366, 10002, 19999)
LINK = (32768, POD_LINK_PORT, 43999)

Flow = tuple[str, str, int]


def reachable(place: str) -> set[Flow]:
    """Every connection that the policies allow, at either end of which a pod of the namespace stands."""
    policies = every(f"overlays/{place}", "NetworkPolicy")
    peers = [*inside(place).values(), *OUTSIDE]
    return {
        (source.name, target.name, port)
        for source in peers
        for target in peers
        for port in PORTS
        if HERE in (source.namespace, target.namespace)
        and leaves(policies, source, target, port)
        and enters(policies, source, target, port)
    }


def leaves(policies: list[Resource], source: Peer, target: Peer, port: int) -> bool:
    return _passes(policies, "egress", "to", of=source, other=target, target=target, port=port)


def enters(policies: list[Resource], source: Peer, target: Peer, port: int) -> bool:
    return _passes(policies, "ingress", "from", of=target, other=source, target=target, port=port)


def _passes(
    policies: list[Resource], direction: str, key: str, *, of: Peer, other: Peer, target: Peer, port: int
) -> bool:
    """One end's policies: without any that speaks of it, everything passes."""
    about = [
        policy["spec"]
        for policy in policies
        if of.namespace == policy["metadata"]["namespace"]
        and direction.title() in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], of.labels)
    ]
    return not about or any(
        _rule_passes(rule, key, other, target, port) for spec in about for rule in spec.get(direction, [])
    )


def _rule_passes(rule: Resource, key: str, other: Peer, target: Peer, port: int) -> bool:
    peers = rule.get(key)
    return (peers is None or any(_is_peer(peer, other) for peer in peers)) and any(
        _is_port(each, target, port) for each in rule["ports"]
    )


def _is_port(rule: Resource, target: Peer, port: int) -> bool:
    first: Any = rule["port"]
    if isinstance(first, str):
        return target.ports.get(first) == port
    return first <= port <= rule.get("endPort", first)


def _is_peer(rule: Resource, peer: Peer) -> bool:
    if block := rule.get("ipBlock"):
        return peer.address is not None and (
            ipaddress.ip_address(peer.address) in ipaddress.ip_network(block["cidr"])
            and not any(ipaddress.ip_address(peer.address) in ipaddress.ip_network(each) for each in block["except"])
        )
    if peer.namespace is None:
        return False
    where = (
        selects(rule["namespaceSelector"], peer.namespace_labels)
        if "namespaceSelector" in rule
        else (peer.namespace == HERE)
    )
    return where and selects(rule.get("podSelector", {}), peer.labels)


def selects(selector: Resource, labels: dict[str, str]) -> bool:
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def flows(sources: str, targets: str, *ports: int) -> set[Flow]:
    return {
        (source, target, port) for source in sources.split(", ") for target in targets.split(", ") for port in ports
    }


def expected(place: str) -> set[Flow]:
    """The table. A pod without policies of its own in the way counts as open at its own end."""
    nodes = "head, router, engine"
    fetching = "router, engine, compress"
    everyone = "head, router, engine, compress, submitter, client pod, stranger here"
    table = (
        flows(nodes, nodes, *NODE_PORTS)
        | flows("router, engine", "head", 6379)
        | flows("router", "engine", *LINK)
        | flows("submitter", "compress", 8265)
        | flows("operator", "head, compress", 8265)
        | flows("client namespace", "router", 8000)
        | flows(everyone, "dns", 53)
        | flows("head", "API server, hub, cloud credentials, operator, dns, prometheus", 443, 6443)
        | flows("head", "client namespace, stranger, false operator", 443, 6443)
        | flows(fetching, "hub", 443)
    )
    if place in ("nodes", "production"):
        table |= flows("engine", "engine", *LINK)
    if place == "production":
        table |= flows("prometheus", nodes, 8080) | flows("prometheus", "head", 44217, 44227)
        table |= flows("prometheus", "router", 8000)
    return table


@pytest.mark.parametrize("place", OVERLAYS)
def test_nobody_talks_to_anybody_but_by_the_table(place: str) -> None:
    found, table = reachable(place), expected(place)
    assert (sorted(found - table), sorted(table - found)) == ([], [])


def test_a_flow_that_is_forgotten_at_one_end_would_be_noticed() -> None:
    policies = every("overlays/dev", "NetworkPolicy")
    router, engine = inside("dev")["router"], inside("dev")["engine"]
    assert leaves(policies, router, engine, POD_LINK_PORT)
    assert enters(policies, router, engine, POD_LINK_PORT)
    halved = [policy for policy in policies if policy["metadata"]["name"] != "headrace-link-in"]
    assert leaves(halved, router, engine, POD_LINK_PORT)
    assert not enters(halved, router, engine, POD_LINK_PORT)


@pytest.mark.parametrize("place", OVERLAYS)
def test_the_kernel_draws_ports_that_the_policies_name_and_ray_has_others(place: str) -> None:
    for pod in pods(f"overlays/{place}"):
        (sysctl,) = pod["spec"]["securityContext"]["sysctls"]
        assert sysctl == {"name": "net.ipv4.ip_local_port_range", "value": f"{LINK[0]} {LINK[-1]}"}
    spec = one(f"overlays/{place}", "RayService")["spec"]["rayClusterConfig"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        given = {name: int(value) for name, value in group["rayStartParams"].items() if name.endswith("-port")}
        assert len(set(given.values())) == len(given)
        assert {given[name] for name in ("node-manager-port", "object-manager-port", "dashboard-agent-grpc-port")} <= {
            *NODE_PORTS
        }
        assert not any(LINK[0] <= port <= LINK[-1] for port in given.values())
