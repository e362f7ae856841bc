"""How is a model made smaller in Kubernetes? A RayJob with one GPU; its artefacts lie where the fleet's models lie."""

from typing import Any

from deployments.manifests import pods
from deployments.manifests.names import COMPRESS, DASHBOARD, METRICS, SUBMITTER, meta
from deployments.manifests.places import Place
from deployments.manifests.service import cluster

GPUS = 1
ON_ONE_MACHINE = Place(name=COMPRESS, purpose="", gpus=True, cache="ReadWriteOnce")
ENTRYPOINT = (
    # A command starts a Ray of its own for its tasks: this job's token and address are not that one's.
    "env -u RAY_AUTH_TOKEN -u RAY_ADDRESS headrace compress smollm2 --to w8a8"
)


def job() -> dict[str, Any]:
    """The RayJob."""
    spec = cluster(_head())
    for key in ("enableInTreeAutoscaling", "autoscalerOptions"):
        del spec[key]
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": meta("headrace-compress", COMPRESS),
        "spec": {
            "entrypoint": ENTRYPOINT,
            "entrypointNumGpus": GPUS,
            "submissionMode": "K8sJobMode",
            "submitterPodTemplate": _submitter(),
            # What was finished is kept: the same command goes on from there.
            "backoffLimit": 2,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 3600,
            "rayClusterSpec": spec,
        },
    }


def _head() -> dict[str, Any]:
    container = pods.container(
        "ray-head",
        env=[pods.hub_token()],
        ports=[
            {"name": "dashboard", "containerPort": DASHBOARD},
            {"name": "metrics", "containerPort": METRICS},
        ],
        volumeMounts=[*pods.TEMPORARY, pods.MODELS],
        readinessProbe=pods.probe("/api/gcs_healthz", DASHBOARD, seconds=5, times=3),
        **pods.alive("/api/gcs_healthz", DASHBOARD),
        resources=pods.resources(cpu=8, memory_gib=64, gpus=GPUS),
    )
    spec = {
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": pods.volumes(ON_ONE_MACHINE),
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    }
    return {"rayStartParams": pods.ray_start(), "template": pods.template(COMPRESS, spec)}


def _submitter() -> dict[str, Any]:
    container = pods.container(
        "ray-job-submitter", volumeMounts=pods.TEMPORARY, resources=pods.resources(cpu=1, memory_gib=1)
    )
    spec = {
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": pods.volumes(None),
    }
    return pods.template(SUBMITTER, spec)
