"""May the pods run where `restricted`, the strictest of Kubernetes' pod security standards, is enforced?"""

import copy
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.k8s.built import FOLDERS, Resource, built, one, pods

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SAFE_SYSCTLS = {"net.ipv4.ip_local_port_range"}
"""Of those that the standard allows, what we set."""
NOT_OURS = {
    "CKV_K8S_43": "the digest of an image is known to those who build it: kustomize's `images` takes it",
    "CKV_K8S_15": "tags name a version and are never moved: pulling 10 GB at each start would cost minutes",
    "CKV_K8S_35": "a hub's token is read from the environment by the hub's own library",
    "CKV_K8S_38": "the head's autoscaler speaks with the API server; workers have no token",
    "CKV_K8S_8": "the autoscaler beside the head is KubeRay's container, without probes; a submitter ends",
    "CKV_K8S_9": "as CKV_K8S_8",
}


def offences(pod: Resource) -> Iterator[str]:
    """Against https://kubernetes.io/docs/concepts/security/pod-security-standards, baseline and restricted."""
    spec = pod["spec"]
    if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "host namespaces"
    if any(not (volume.keys() - {"name"}) <= VOLUMES for volume in spec.get("volumes", [])):
        yield "volumes"
    if not {each["name"] for each in spec["securityContext"].get("sysctls", [])} <= SAFE_SYSCTLS:
        yield "sysctls"
    for container in [*spec["containers"], *spec["initContainers"]]:
        yield from (f"{container['name']}: {what}" for what in _offences(container, spec["securityContext"]))


def _offences(container: Resource, of_pod: Resource) -> Iterator[str]:
    context = of_pod | container.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
        yield "privileges"
    if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
        yield "root"
    if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccomp"
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []) or not set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"}:
        yield "capabilities"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "host ports"


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_pod_may_run_where_restricted_is_enforced(folder: str) -> None:
    assert {pod["metadata"]["name"]: list(offences(pod)) for pod in pods(folder) if list(offences(pod))} == {}


def test_the_namespace_enforces_it() -> None:
    labels = one("overlays/dev", "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_an_offence_would_be_noticed() -> None:
    pod = copy.deepcopy(pods("overlays/dev")[0])
    pod["spec"]["hostNetwork"] = True
    pod["spec"]["volumes"].append({"name": "host", "hostPath": {"path": "/"}})
    pod["spec"]["containers"][0]["securityContext"] = {"runAsUser": 0}
    assert list(offences(pod)) == [
        "host namespaces",
        "volumes",
        "ray-head: privileges",
        "ray-head: root",
        "ray-head: capabilities",
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_containers_write_lies_on_volumes(folder: str) -> None:
    for pod in pods(folder):
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        for container in [*pod["spec"]["containers"], *pod["spec"]["initContainers"]]:
            assert container["securityContext"]["readOnlyRootFilesystem"]
            mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert {"/tmp", "/home/headrace"} <= mounted.keys()
            assert set(mounted.values()) <= volumes


@pytest.mark.prove
@pytest.mark.skipif(shutil.which("checkov") is None, reason="checkov is not installed: pip install checkov, anywhere")
def test_checkov_finds_nothing_that_has_no_reason(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    for folder in FOLDERS:
        plain = [each for each in built(folder) if not each["apiVersion"].startswith(("ray.io", "monitoring"))]
        text = yaml.safe_dump_all([*plain, *pods(folder)])
        (tmp_path / f"{folder.replace('/', '-')}.yaml").write_text(text)
    command = ["checkov", "--directory", str(tmp_path), "--framework", "kubernetes", "--output", "json", "--compact"]
    command += ["--skip-download", "--skip-check", ",".join(NOT_OURS)]
    said = subprocess.run(command, capture_output=True, text=True)
    results = json.loads(said.stdout)
    record_property("checkov", results["summary"]["checkov_version"])
    record_property("checks_passed", results["summary"]["passed"])
    record_property("checks_excused", sorted(NOT_OURS))
    failed = {(check["check_id"], check["resource"]) for check in results["results"]["failed_checks"]}
    assert failed == set()
    assert results["summary"]["passed"] > 100
