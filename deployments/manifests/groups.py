"""On which pods do routers and engines run? Each carries one router, or the ranks that an engine has on one machine."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from deployments import declare
from deployments.fleet import Fleet, Model, RouterSettings
from deployments.manifests import pods
from deployments.manifests.names import AGENT, COMPONENT, ENGINE, GROUP, METRICS, ROUTER, SERVE, labels
from deployments.manifests.places import Place

AFTER_S = 60
"""What a pod gets beside the deadline of its drain."""
REPLACED_S = 600
"""What replicas elsewhere get to start. Serve ends at once what has no more time left than its own end may take."""
ROUTERS = "routers"


def worker_groups(fleet: Fleet, place: Place, fetched: Mapping[str, str]) -> list[dict[str, Any]]:
    """KubeRay's worker groups. `fetched`: by model, what is fetched for it; nothing for those that lie there."""
    # In the fleet's order: KubeRay adds a group to a running cluster only at the end.
    sizes = dict.fromkeys(ranks_on_a_node(model) for model in fleet.engines)
    return [_routers(fleet, place, fetched), *(_engines(fleet, place, size, fetched) for size in sizes)]


def engine_group(model: Model, place: Place) -> str:
    """The group on which a model's engines run."""
    return _engine_group(ranks_on_a_node(model), place)


def ranks_on_a_node(model: Model) -> int:
    """Ranks of one engine on one machine: GPUs of a pod."""
    return model.ranks // model.nodes


def drain_s(router: RouterSettings) -> int:
    """Seconds that a pod's replicas get to finish: as many as Serve gives them."""
    return math.ceil(declare.grace_s(router))


def notice_s(router: RouterSettings) -> int:
    """How long before its end Ray hears that a pod goes: then its replicas are replaced first, and finish after."""
    return REPLACED_S + drain_s(router)


def _engine_group(size: int, place: Place) -> str:
    return f"engines-{size}{'gpu' if place.gpus else 'cpu'}"


def _routers(fleet: Fleet, place: Place, fetched: Mapping[str, str]) -> dict[str, Any]:
    router = fleet.router
    container = pods.worker(
        pods.probe("/ready", SERVE, seconds=2, times=2),
        notice_s=notice_s(router),
        env=[pods.store_password()] if fleet.store.url else (),
        ports=[_port(SERVE, router.port), _port("metrics", METRICS)],
        resources=pods.resources(cpu=2, memory_gib=6) if place.gpus else pods.resources(cpu=1, memory_gib=4),
    )
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule" if place.several_nodes else "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels(ROUTER)},
    }
    # Not of variants: routers read a model's tokenizer, and its variants have the same.
    sources = [source for model in fleet.models if (source := fetched.get(model.name))]
    spec = _spec(container, sources, place, router) | {"topologySpreadConstraints": [spread]}
    # One more than there are routers: an update starts a router before it stops one.
    return _group(ROUTERS, ROUTER, spec, least=router.replicas, most=router.replicas + 1, cpus=1)


def _engines(fleet: Fleet, place: Place, size: int, fetched: Mapping[str, str]) -> dict[str, Any]:
    models = [model for model in fleet.engines if ranks_on_a_node(model) == size]
    amount = (
        pods.resources(cpu=4 * size, memory_gib=32 * size, gpus=size)
        if place.gpus
        else pods.resources(cpu=2 * size, memory_gib=8 * size)
    )
    container = pods.worker(
        pods.probe(pods.RAYLET, AGENT, seconds=5, times=3),
        notice_s=notice_s(fleet.router),
        ports=[_port("metrics", METRICS)],
        resources=amount,
    )
    sources = [source for model in models if (source := fetched.get(model.name))]
    spec = _spec(container, sources, place, fleet.router)
    if place.gpus:
        spec["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    least = sum(model.replicas.min * model.nodes for model in models)
    most = sum(model.replicas.max * model.nodes for model in models)
    return _group(_engine_group(size, place), ENGINE, spec, least=least, most=most, cpus=size)


def _spec(container: dict[str, Any], sources: Sequence[str], place: Place, router: RouterSettings) -> dict[str, Any]:
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": notice_s(router) + AFTER_S,
        "initContainers": pods.fetching(list(dict.fromkeys(sources))),
        "containers": [container],
        "volumes": pods.volumes(place),
    }


def _group(name: str, component: str, spec: dict[str, Any], *, least: int, most: int, cpus: int) -> dict[str, Any]:
    """`cpus`: as Ray counts them, so that one replica, or one engine's part, fills a pod."""
    return {
        "groupName": name,
        "replicas": least,
        "minReplicas": least,
        "maxReplicas": most,
        "labels": {GROUP: name},
        "rayStartParams": pods.ray_start(**{"num-cpus": str(cpus)}),
        "template": pods.template(component, spec),
    }


def _port(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "containerPort": number}


def needed(groups: Sequence[Mapping[str, Any]], component: str) -> int:
    """Pods of a component that are always there."""
    return sum(
        group["minReplicas"] for group in groups if group["template"]["metadata"]["labels"][COMPONENT] == component
    )
