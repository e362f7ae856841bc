"""What is the RayService: the head, how it changes, what Serve is told, and who finds the routers?"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from deployments import declare
from deployments.fleet import Fleet, Model
from deployments.manifests import pods
from deployments.manifests.groups import AFTER_S, ROUTERS, drain_s, engine_group, worker_groups
from deployments.manifests.names import (
    AUTOSCALER_METRICS,
    DASHBOARD,
    DASHBOARD_METRICS,
    ENVIRONMENT,
    GCS,
    GROUP,
    HEAD,
    METRICS,
    NAME,
    ROUTER,
    SERVE,
    labels,
    meta,
)
from deployments.manifests.places import Place
from deployments.manifests.text import dump

IDLE_S = 300
"""After which the autoscaler gives a worker back."""


def base() -> dict[str, Any]:
    """The RayService without its fleet.

    `upgradeStrategy: None`: a change of serveConfigV2 is applied to the running cluster, and so are groups that are new
    at the end while all else is as it was; no other change starts a second one, which would want as many GPUs again.
    """
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": meta(NAME),
        "spec": {
            "upgradeStrategy": {"type": "None"},
            # Nothing of Serve runs on the head, so it never takes requests.
            "excludeHeadPodFromServeSvc": True,
            # KubeRay's own, into which it takes every worker that is ready, engines too: not for requests.
            "serveService": {
                "metadata": {"name": f"{NAME}-workers"},
                "spec": {"ports": [{"name": SERVE, "port": 8000}]},
            },
            "rayClusterConfig": cluster(head()),
        },
    }


def cluster(head: dict[str, Any]) -> dict[str, Any]:
    """A Ray cluster behind a token: KubeRay makes a Secret and gives it to every pod as RAY_AUTH_TOKEN."""
    return {
        "rayVersion": version("ray"),
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": IDLE_S,
            "imagePullPolicy": "IfNotPresent",
            "securityContext": pods.SECURITY,
            "envFrom": [{"configMapRef": {"name": ENVIRONMENT}}],
            "volumeMounts": pods.TEMPORARY,
            "resources": pods.resources(cpu="500m", memory_gib=1),
        },
        "headGroupSpec": head,
    }


def head() -> dict[str, Any]:
    """A head that carries no replica."""
    container = pods.container(
        "ray-head",
        ports=[
            {"name": name, "containerPort": port}
            for name, port in (
                ("gcs-server", GCS),
                ("dashboard", DASHBOARD),
                ("metrics", METRICS),
                ("as-metrics", AUTOSCALER_METRICS),
                ("dash-metrics", DASHBOARD_METRICS),
            )
        ],
        volumeMounts=pods.TEMPORARY,
        readinessProbe=pods.probe("/api/gcs_healthz", DASHBOARD, seconds=5, times=3),
        **pods.alive("/api/gcs_healthz", DASHBOARD),
        resources=pods.resources(cpu=1, memory_gib=4),
    )
    return {
        "rayStartParams": pods.ray_start(**{"num-cpus": "0"}),
        "template": pods.template(HEAD, {"containers": [container], "volumes": pods.volumes(None)}),
    }


def of_fleet(fleet: Fleet, place: Place, fetched: Mapping[str, str]) -> dict[str, Any]:
    """The part of the RayService that says what is served, and on what: a patch."""
    config: dict[str, Any] = {"workerGroupSpecs": worker_groups(fleet, place, fetched)}
    if place.highly_available:
        # Ray's own store on a volume: a new head knows what the old one knew.
        config["gcsFaultToleranceOptions"] = {"backend": "rocksdb", "storage": {"size": "5Gi"}}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": NAME},
        "spec": {
            # Should the strategy be changed to a second cluster: the first stays until its streams have ended.
            "rayClusterDeletionDelaySeconds": drain_s(fleet.router) + AFTER_S,
            "serveConfigV2": dump(serve_config(fleet, place)),
            "rayClusterConfig": config,
        },
    }


def serve_config(fleet: Fleet, place: Place) -> dict[str, Any]:
    """What `headrace serve` would put to Serve, and on which group each deployment runs."""
    schema = declare.schema(fleet)
    (application,) = schema["applications"]
    router = {"name": "router", "ray_actor_options": {"num_cpus": 1, "label_selector": {GROUP: ROUTERS}}}
    application["deployments"] = [router, *(_engine(model, fleet, place) for model in fleet.engines)]
    return schema


def _engine(model: Model, fleet: Fleet, place: Place) -> dict[str, Any]:
    options = declare.engine_options(model, fleet.router, fleet.scaling, gpus=place.gpus)
    return {
        "name": declare.engine_name(model.name),
        "ray_actor_options": options["ray_actor_options"],
        "placement_group_bundles": options["placement_group_bundles"],
        "placement_group_strategy": options["placement_group_strategy"],
        "placement_group_bundle_label_selector": [{GROUP: engine_group(model, place)}],
    }


def front() -> dict[str, Any]:
    """The Service that clients ask: routers that answer /ready, and nothing else."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta(NAME, ROUTER),
        "spec": {
            "type": "ClusterIP",
            "selector": labels(ROUTER),
            "ports": [{"name": "http", "port": 8000, "targetPort": SERVE}],
        },
    }
