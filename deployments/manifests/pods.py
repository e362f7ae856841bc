"""What is a pod of the fleet made of? Every one may run in a namespace that enforces the `restricted` standard."""

from collections.abc import Sequence
from typing import Any

from deployments.manifests.names import (
    AGENT,
    AGENT_GRPC,
    CACHE,
    DRAWN,
    ENVIRONMENT,
    HUB_SECRET,
    METRICS,
    MODELS_CLAIM,
    NODE_MANAGER,
    OBJECT_MANAGER,
    RUNTIME_ENV_AGENT,
    STORE_SECRET,
    labels,
)
from deployments.manifests.places import Place

USER = 10001
"""Above the ids that a node's own users have."""
HOME = "/home/headrace"
SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
}
"""Of every container. KubeRay copies a worker's to the container that waits for the head."""
TEMPORARY = [{"name": "temporary", "mountPath": "/tmp"}, {"name": "home", "mountPath": HOME}]
MODELS = {"name": "models", "mountPath": CACHE}
RAYLET = "/api/local_raylet_healthz"


def resources(*, cpu: int | str, memory_gib: int, gpus: int = 0) -> dict[str, Any]:
    """As much as is asked for and no more: a pod that gets less than an engine counts on is slow or killed."""
    amount = {"cpu": str(cpu), "memory": f"{memory_gib}Gi"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    return {"requests": amount, "limits": amount}


def container(name: str, **more: Any) -> dict[str, Any]:
    """One of the image, without rights."""
    return {
        "name": name,
        "image": "headrace",
        "imagePullPolicy": "IfNotPresent",
        "envFrom": [{"configMapRef": {"name": ENVIRONMENT}}],
        "securityContext": SECURITY,
        **more,
    }


def template(component: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A pod's template; `spec` completes what all have."""
    return {"metadata": {"labels": labels(component)}, "spec": {"securityContext": pod_security()} | spec}


def pod_security() -> dict[str, Any]:
    """Of every pod."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
        "sysctls": [{"name": "net.ipv4.ip_local_port_range", "value": f"{DRAWN[0]} {DRAWN[1]}"}],
    }


def volumes(place: Place | None) -> list[dict[str, Any]]:
    """What is written to. `place`: where models lie; None: they are not needed."""
    temporary = [{"name": name, "emptyDir": {}} for name in ("temporary", "home")]
    if place is None:
        return temporary
    if place.cache is None:
        return [*temporary, {"name": "models", "emptyDir": {"sizeLimit": "20Gi"}}]
    return [*temporary, {"name": "models", "persistentVolumeClaim": {"claimName": MODELS_CLAIM}}]


def fetching(sources: Sequence[str]) -> list[dict[str, Any]]:
    """A container for each model that must be there first; one that is there takes seconds."""
    return [
        container(
            f"fetch-{i}",
            command=["headrace", "fetch", source],
            env=[hub_token()],
            volumeMounts=[*TEMPORARY, MODELS],
            resources=resources(cpu=1, memory_gib=4),
        )
        for i, source in enumerate(sources)
    ]


def hub_token() -> dict[str, Any]:
    """For models that a hub gives to those who may have them."""
    return {
        "name": "HF_TOKEN",
        "valueFrom": {"secretKeyRef": {"name": HUB_SECRET, "key": "token", "optional": True}},
    }


def probe(path: str, port: int | str, *, seconds: int, times: int) -> dict[str, Any]:
    """Asks every so many seconds; so many silences in a row count."""
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": seconds,
        "timeoutSeconds": min(seconds, 5),
        "failureThreshold": times,
    }


def alive(path: str, port: int) -> dict[str, Any]:
    """Probes of a Ray node. KubeRay would add its own, which on workers call wget and ask Serve's proxy."""
    return {
        "startupProbe": probe(path, port, seconds=5, times=60),
        "livenessProbe": probe(path, port, seconds=10, times=12),
    }


def store_password() -> dict[str, Any]:
    """For routers that keep decisions in a database; its driver reads it there."""
    return {
        "name": "PGPASSWORD",
        "valueFrom": {"secretKeyRef": {"name": STORE_SECRET, "key": "password", "optional": True}},
    }


def worker(ready: dict[str, Any], *, notice_s: int, env: Sequence[dict[str, Any]] = (), **more: Any) -> dict[str, Any]:
    """The container of a worker."""
    return container(
        "ray-worker",
        # Models are local by now; engines need nothing from outside.
        env=[{"name": "HF_HUB_OFFLINE", "value": "1"}, *env],
        volumeMounts=[*TEMPORARY, MODELS],
        lifecycle={"preStop": {"exec": {"command": ["/bin/sh", "-c", leaving(notice_s)]}}},
        readinessProbe=ready,
        **alive(RAYLET, AGENT),
        **more,
    )


def leaving(notice_s: int) -> str:
    """What a worker does first when its pod is to go.

    Serve moves the replicas of a draining node elsewhere and lets them finish; then its raylet ends by itself. Not so
    `ray start --block`, which would hold the pod, and its GPUs, until the end of the grace: the pod is to go then.
    Without this a SIGTERM ends Ray and every stream at once.
    """
    return (
        "ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message 'the pod is being terminated' "
        f"--deadline-remaining-seconds {notice_s} && while grep -qsx raylet /proc/[0-9]*/comm; do sleep 1; done"
    )


def ray_start(**more: str) -> dict[str, str]:
    """Arguments of `ray start`: ports that policies can name."""
    return {
        "node-manager-port": str(NODE_MANAGER),
        "object-manager-port": str(OBJECT_MANAGER),
        "dashboard-agent-grpc-port": str(AGENT_GRPC),
        "dashboard-agent-listen-port": str(AGENT),
        "runtime-env-agent-port": str(RUNTIME_ENV_AGENT),
        "metrics-export-port": str(METRICS),
        **more,
    }
