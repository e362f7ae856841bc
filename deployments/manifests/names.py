"""What are the parts of a fleet called in Kubernetes, and on which ports do they listen?"""

NAME = "headrace"
"""Of the RayService, of the Service in front of its routers, of the namespace, of what belongs together."""
PART_OF = "app.kubernetes.io/part-of"
COMPONENT = "app.kubernetes.io/component"
"""Pods keep the `app.kubernetes.io/name` that KubeRay gives them: its service for the head looks for that."""
HEAD, ROUTER, ENGINE, COMPRESS, SUBMITTER = "head", "router", "engine", "compress", "submitter"
NODES = (HEAD, ROUTER, ENGINE)
"""Components that are nodes of the fleet's Ray cluster."""
GROUP = "headrace.io/group"
"""A label of Ray's nodes, by which Serve puts routers and engines where they belong."""
CLIENTS = "headrace.io/clients"
"""A label, `"true"` on namespaces or pods that may ask the routers."""
OPERATOR_NAMESPACE = "kuberay-system"
MONITORING_NAMESPACE = "monitoring"

CACHE = "/var/cache/headrace"
MODELS_CLAIM = "headrace-models"
HUB_SECRET = "headrace-hub"
"""Its `token` is given to what fetches models; without the Secret there is none."""
STORE_SECRET = "headrace-store"
"""Its `password` is that of the store's user; without the Secret there is none."""
ENVIRONMENT = "headrace-environment"

SERVE = "serve"
"""Name of the router's port; KubeRay looks for a port called so."""
GCS, DASHBOARD, AGENT, METRICS = 6379, 8265, 52365, 8080
"""KubeRay's own choices."""
NODE_MANAGER, OBJECT_MANAGER, AGENT_GRPC, RUNTIME_ENV_AGENT = 6385, 6386, 52366, 52367
"""Ray would draw these."""
WORKERS = (10002, 19999)
"""Ray's processes listen between these: its own choice."""
DRAWN = (32768, 43999)
"""The kernel draws the link's port between these, and those of NCCL: pods set it, so that policies can say it. Ray's
own are elsewhere."""
AUTOSCALER_METRICS, DASHBOARD_METRICS = 44217, 44227


def labels(component: str) -> dict[str, str]:
    """Labels of pods and of what goes with them."""
    return {PART_OF: NAME, COMPONENT: component}


def meta(name: str, component: str | None = None) -> dict[str, object]:
    """The metadata of a resource; kustomize adds the namespace."""
    return {"name": name, "labels": {PART_OF: NAME} if component is None else labels(component)}
