"""Which files make up k8s/, and what stands in each?"""

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from cluster.launch import DEFAULTS
from deployments.fleet import Fleet
from deployments.manifests import alerts, compress_job, dashboard, policies, service
from deployments.manifests.groups import needed, worker_groups
from deployments.manifests.names import (
    CACHE,
    ENGINE,
    ENVIRONMENT,
    MODELS_CLAIM,
    NAME,
    ROUTER,
    labels,
    meta,
)
from deployments.manifests.places import Place, check
from deployments.manifests.text import dump

MADE = "# Made by `headrace k8s render`: patch it, or change the fleet and render again.\n"
"""Begins each file; by it a later render knows its own."""
KUSTOMIZE = "kustomize.config.k8s.io/v1beta1"
VARIABLES = {
    "HEADRACE_CACHE": CACHE,
    "HEADRACE_ARTEFACTS": f"{CACHE}/artefacts",
    **DEFAULTS,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}
"""The environment of every Ray process: that of a local run."""

Files = dict[str, str]


def render(fleet: Fleet, place: Place, fetched: Mapping[str, str]) -> Files:
    """Every file by its path within k8s/: what all places share, the place's overlay, and the job that compresses.

    `fleet`: as it runs there, its sources folders in the pods. `fetched`: by model, what a pod fetches for it first.
    Raises Unfit.
    """
    check(fleet, place)
    overlay = f"overlays/{place.name}"
    return (
        _in("base", _base(), {})
        | _in(overlay, _overlay(fleet, place, fetched), _extras(place))
        | _in("compress", _compress(), {})
    )


def _base() -> dict[str, list[dict[str, Any]]]:
    resources = {
        "namespace.yaml": [_namespace()],
        "environment.yaml": [_environment()],
        "rayservice.yaml": [service.base()],
        "service.yaml": [service.front()],
        "network-policies.yaml": policies.base(),
    }
    return resources | {"kustomization.yaml": [_kustomization(resources=sorted(resources))]}


def _overlay(fleet: Fleet, place: Place, fetched: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    resources: dict[str, list[dict[str, Any]]] = {}
    if place.cache is not None:
        resources["models.yaml"] = [_claim(place.cache)]
    if budgets := _budgets(fleet, place, fetched):
        resources["disruption-budgets.yaml"] = budgets
    if flows := _flows(fleet):
        resources["network-policies.yaml"] = flows
    if place.highly_available:
        resources["monitoring.yaml"] = [
            *alerts.pod_monitors(),
            alerts.rules(fleet.scaling),
            *policies.monitoring(),
        ]
    kustomization = _kustomization(
        resources=["../../base", *sorted(resources)],
        patches=[{"path": "fleet-on-rayservice.yaml"}],
        images=[_image("gpu" if place.gpus else "cpu")],
    )
    if place.highly_available:
        kustomization |= _dashboard_generator()
    patch = service.of_fleet(fleet, place, fetched)
    return resources | {"fleet-on-rayservice.yaml": [patch], "kustomization.yaml": [kustomization]}


def _flows(fleet: Fleet) -> list[dict[str, Any]]:
    """Those that only some fleets have."""
    ranks = policies.between_ranks() if any(model.nodes > 1 for model in fleet.engines) else []
    return ranks + (policies.store(fleet.store.url) if fleet.store.url else [])


def _compress() -> dict[str, list[dict[str, Any]]]:
    kustomization = _kustomization(resources=["rayjob.yaml"], namespace=NAME, images=[_image("gpu-compress")])
    return {"rayjob.yaml": [compress_job.job()], "kustomization.yaml": [kustomization]}


def _extras(place: Place) -> Files:
    if not place.highly_available:
        return {}
    return {"dashboard.json": json.dumps(dashboard.dashboard(), indent=1) + "\n"}


def _dashboard_generator() -> dict[str, Any]:
    found_by_grafana = {"labels": {"grafana_dashboard": "1"}}
    files = {"name": f"{NAME}-dashboard", "files": ["dashboard.json"], "options": found_by_grafana}
    return {"configMapGenerator": [files], "generatorOptions": {"disableNameSuffixHash": True}}


def _kustomization(**values: Any) -> dict[str, Any]:
    return {"apiVersion": KUSTOMIZE, "kind": "Kustomization", "namespace": NAME} | values


def _image(variant: str) -> dict[str, str]:
    """Where images lie is said by `newName` beside it."""
    return {"name": NAME, "newTag": f"{version(NAME)}-{variant}"}


def _namespace() -> dict[str, Any]:
    enforced = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME, "labels": enforced}}


def _environment() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(ENVIRONMENT), "data": VARIABLES}


def _claim(access: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": meta(MODELS_CLAIM),
        "spec": {"accessModes": [access], "resources": {"requests": {"storage": "200Gi"}}},
    }


def _budgets(fleet: Fleet, place: Place, fetched: Mapping[str, str]) -> list[dict[str, Any]]:
    """One pod of a kind may go at a time, as far as another stays.

    A number that stays, since a RayCluster has no scale that a share, or a number that may go, could be counted from.
    """
    groups = worker_groups(fleet, place, fetched)
    stay = {component: needed(groups, component) - 1 for component in (ROUTER, ENGINE)}
    return [
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": meta(f"{NAME}-{component}s", component),
            "spec": {
                "minAvailable": count,
                # One that can't answer anyway may always go.
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": labels(component)},
            },
        }
        for component, count in stay.items()
        if count > 0
    ]


def _in(folder: str, files: Mapping[str, list[dict[str, Any]]], texts: Files) -> Files:
    return {f"{folder}/{name}": _text(documents) for name, documents in files.items()} | {
        f"{folder}/{name}": text for name, text in texts.items()
    }


def _text(documents: list[dict[str, Any]]) -> str:
    return MADE + dump(*documents)
