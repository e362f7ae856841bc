"""What does kustomize build of k8s/, and which pods does KubeRay make of that? Each file is parsed once."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from deployments.fleet import Fleet

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
OVERLAYS = ("dev", "gpu", "nodes", "production")
FOLDERS = (*(f"overlays/{name}" for name in OVERLAYS), "compress")
"""Those that are applied."""
CLUSTER_WIDE = ("Namespace",)

Resource = dict[str, Any]


@cache
def read(path: Path) -> list[Resource]:
    return list(yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader))


def kustomization(folder: Path) -> Resource:
    (values,) = read(folder / "kustomization.yaml")
    return values


@cache
def built(folder: str) -> list[Resource]:
    """The resources of a folder of k8s/, or of one elsewhere, by the part of kustomize's rules that its files need."""
    return _built(K8S / folder)


def one(folder: str, kind: str, name: str = "headrace") -> Resource:
    (found,) = (each for each in built(folder) if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def every(folder: str, kind: str) -> list[Resource]:
    return [each for each in built(folder) if each["kind"] == kind]


def _built(folder: Path) -> list[Resource]:
    rules = kustomization(folder)
    known = {"apiVersion", "kind", "namespace", "resources", "patches", "images"}
    assert rules.keys() <= known | {"configMapGenerator", "generatorOptions"}
    resources: list[Resource] = []
    for name in rules["resources"]:
        resources += _built(folder / name) if (folder / name).is_dir() else copy.deepcopy(read(folder / name))
    for generator in rules.get("configMapGenerator", []):
        resources.append(_generated(folder, generator))
    for patch in rules.get("patches", []):
        (values,) = read(folder / patch["path"])
        (target,) = (each for each in resources if _id(each) == _id(values))
        target.update(merged(target, values))
    for resource in resources:
        if resource["kind"] not in CLUSTER_WIDE:
            resource["metadata"]["namespace"] = rules["namespace"]
    return [_with_images(each, {image["name"]: image for image in rules.get("images", [])}) for each in resources]


def merged(old: Any, new: Any) -> Any:
    """A JSON merge patch (RFC 7386), which is what kustomize does with resources that it has no schema for."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return old | {key: merged(old.get(key), value) for key, value in new.items()}


def _id(resource: Resource) -> tuple[str, str]:
    return resource["kind"], resource["metadata"]["name"]


def _generated(folder: Path, generator: Resource) -> Resource:
    data = {name: (folder / name).read_text() for name in generator["files"]}
    meta = {"name": generator["name"], "labels": generator["options"]["labels"]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def _with_images(node: Any, images: dict[str, Resource]) -> Any:
    if isinstance(node, list):
        return [_with_images(item, images) for item in node]
    if not isinstance(node, dict):
        return node
    changed = {key: _with_images(value, images) for key, value in node.items()}
    if isinstance(name := node.get("image"), str) and name in images:
        changed["image"] = f"{images[name].get('newName', name)}:{images[name]['newTag']}"
    return changed


@cache
def declared(folder: str) -> Resource:
    """What Serve is told."""
    return yaml.safe_load(one(folder, "RayService")["spec"]["serveConfigV2"])


def fleet_of(folder: str) -> Fleet:
    """The fleet that Serve is told of."""
    (application,) = declared(folder)["applications"]
    return Fleet.model_validate(application["args"])


def clusters(folder: str) -> list[Resource]:
    """Specifications of Ray clusters."""
    services = [each["spec"]["rayClusterConfig"] for each in every(folder, "RayService")]
    return services + [each["spec"]["rayClusterSpec"] for each in every(folder, "RayJob")]


def groups(folder: str) -> dict[str, Resource]:
    """Worker groups by name."""
    return {group["groupName"]: group for spec in clusters(folder) for group in spec.get("workerGroupSpecs", [])}


@cache
def pods(folder: str) -> list[Resource]:
    """One pod of each kind, with what KubeRay 1.7 adds to it (ray-operator/controllers/ray/common/pod.go)."""
    found = []
    for spec in clusters(folder):
        found.append(_pod("head", spec["headGroupSpec"]["template"], _autoscalers(spec), []))
        for group in spec.get("workerGroupSpecs", []):
            (container,) = group["template"]["spec"]["containers"]
            waiting = {key: container[key] for key in ("image", "securityContext", "volumeMounts")}
            limits = {"cpu": "200m", "memory": "256Mi"}
            waiting |= {"name": "wait-gcs-ready", "resources": {"limits": limits, "requests": limits}}
            found.append(_pod(group["groupName"], group["template"], [], [waiting]))
    for job in every(folder, "RayJob"):
        found.append(_pod("submitter", job["spec"]["submitterPodTemplate"], [], []))
    return found


def _pod(name: str, template: Resource, containers: list[Resource], before: list[Resource]) -> Resource:
    spec = copy.deepcopy(template["spec"])
    spec["containers"] += containers
    spec["initContainers"] = spec.get("initContainers", []) + before
    meta = template["metadata"] | {"name": name, "namespace": "headrace"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def _autoscalers(spec: Resource) -> list[Resource]:
    if not spec.get("enableInTreeAutoscaling"):
        return []
    options = spec["autoscalerOptions"]
    (head,) = spec["headGroupSpec"]["template"]["spec"]["containers"]
    kept = {key: options[key] for key in ("resources", "securityContext", "volumeMounts", "imagePullPolicy")}
    return [{"name": "autoscaler", "image": head["image"]} | kept]
