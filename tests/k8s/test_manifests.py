"""Would Kubernetes, KubeRay, Serve and Headrace take k8s/base as it is, and do its numbers fit together?"""

import copy
import gzip
import json
import random
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from ray.serve.schema import ServeDeploySchema

from autoscaling import ServePolicy
from cluster import launch
from deployments import declare
from deployments.fleet import Fleet
from headrace.fetching import cache

ROOT = Path(__file__).parents[2]
BASE = ROOT / "k8s" / "base"
SCHEMA = Path(__file__).parent / "schemas" / "rayservice-v1.json.gz"


def manifest(name: str) -> dict[str, Any]:
    return yaml.safe_load((BASE / name).read_text())


def closed(schema: Any) -> Any:
    """The schema with unknown fields refused, as kubectl does; the definition itself lets them pass."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        inner["additionalProperties"] = False
    return inner


def complaints(resource: dict[str, Any]) -> list[str]:
    schema = closed(json.loads(gzip.decompress(SCHEMA.read_bytes())))
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(resource)]


@pytest.fixture
def service() -> dict[str, Any]:
    return manifest("rayservice.yaml")


@pytest.fixture
def declared(service: dict[str, Any]) -> dict[str, Any]:
    return yaml.safe_load(service["spec"]["serveConfigV2"])


@pytest.fixture
def fleet(declared: dict[str, Any]) -> Fleet:
    return Fleet.model_validate(declared["applications"][0]["args"])


@pytest.fixture
def worker_group(service: dict[str, Any]) -> dict[str, Any]:
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    return group


@pytest.fixture
def worker(worker_group: dict[str, Any]) -> dict[str, Any]:
    (container,) = worker_group["template"]["spec"]["containers"]
    return container


def test_every_manifest_is_named_by_the_kustomization_and_has_a_kind():
    resources = manifest("kustomization.yaml")["resources"]
    assert sorted([*resources, "kustomization.yaml"]) == sorted(file.name for file in BASE.iterdir())
    for name in resources:
        assert {"apiVersion", "kind", "metadata"} <= manifest(name).keys()


def test_the_service_fits_the_schema_of_kuberay(service: dict[str, Any]):
    assert complaints(service) == []


def test_a_misspelt_or_mistyped_field_would_be_noticed(service: dict[str, Any]):
    misspelt, mistyped = copy.deepcopy(service), copy.deepcopy(service)
    misspelt["spec"]["rayClusterConfig"]["authOptions"]["mod"] = "token"
    mistyped["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["maxReplicas"] = "2"
    assert "'mod' was unexpected" in complaints(misspelt)[0]
    assert complaints(mistyped) == [
        "$.spec.rayClusterConfig.workerGroupSpecs[0].maxReplicas: '2' is not of type 'integer'"
    ]


def test_serve_takes_the_configuration(declared: dict[str, Any]):
    assert [app.name for app in ServeDeploySchema.model_validate(declared).applications] == ["headrace"]


def test_the_configuration_is_what_headrace_itself_declares_for_the_fleet(declared: dict[str, Any], fleet: Fleet):
    declared["applications"][0]["args"] = fleet.model_dump(mode="json")
    assert declared == declare.schema(fleet)


def test_the_policy_takes_its_arguments(declared: dict[str, Any]):
    policy = declared["applications"][0]["autoscaling_policy"]
    assert policy["policy_function"] == "autoscaling:ServePolicy"
    ServePolicy(**policy["policy_kwargs"])


def test_the_router_listens_where_the_service_and_the_probe_look(
    service: dict[str, Any], fleet: Fleet, worker: dict[str, Any]
):
    assert fleet.router.host == "0.0.0.0"
    (head,) = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"]
    for ports in (service["spec"]["serveService"]["spec"]["ports"], head["ports"], worker["ports"]):
        (port,) = (one for one in ports if one["name"] == "serve")
        assert fleet.router.port in port.values()
    assert worker["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "serve"}


def test_streams_may_end_before_a_pod_or_an_old_cluster_goes(
    service: dict[str, Any], fleet: Fleet, worker_group: dict[str, Any], worker: dict[str, Any]
):
    command = worker["lifecycle"]["preStop"]["exec"]["command"][-1]
    deadline = re.search(r"--deadline-remaining-seconds (\d+)", command)
    assert deadline is not None
    assert int(deadline[1]) >= fleet.router.longest_stream_s
    assert worker_group["template"]["spec"]["terminationGracePeriodSeconds"] > int(deadline[1])
    assert service["spec"]["rayClusterDeletionDelaySeconds"] > fleet.router.longest_stream_s


def test_the_workers_can_carry_the_whole_fleet(fleet: Fleet, worker_group: dict[str, Any], worker: dict[str, Any]):
    cpus = int(worker["resources"]["limits"]["cpu"])
    needed = fleet.router.replicas * declare.ROUTER_CPUS
    for model in fleet.models:
        ranks = model.tensor * model.pipeline_parallel
        assert ranks <= cpus, "an engine's bundle lies on one node"
        needed += ranks * model.replicas.max
    assert needed <= cpus * worker_group["maxReplicas"]
    assert needed > cpus * worker_group["minReplicas"], "else the second worker would never be asked for"


def test_the_head_carries_no_replica(service: dict[str, Any]):
    assert service["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    assert service["spec"]["excludeHeadPodFromServeSvc"] is True


def test_the_model_is_fetched_to_where_the_fleet_looks_for_it(
    fleet: Fleet, worker_group: dict[str, Any], worker: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HEADRACE_CACHE", manifest("config.yaml")["data"]["HEADRACE_CACHE"])
    (fetch,) = worker_group["template"]["spec"]["initContainers"]
    *_, name = fetch["command"]
    assert fleet.models[0].source == str(cache.place(name))
    assert fetch["volumeMounts"] == worker["volumeMounts"]
    assert Path(fleet.models[0].source).is_relative_to(worker["volumeMounts"][0]["mountPath"])


def test_the_environment_is_that_of_a_local_run():
    local = launch.environment({}, run_id="run", token=Path("token"), ports=launch.free_ports(random.Random(1)))
    for name, value in manifest("config.yaml")["data"].items():
        assert isinstance(value, str)
        assert name == "HEADRACE_CACHE" or local[name] == value


def test_one_image_of_this_version_and_of_the_locked_ray_is_used_everywhere(service: dict[str, Any]):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (image,) = manifest("kustomization.yaml")["images"]
    assert (image["name"], image["newTag"]) == ("headrace", project["version"])
    assert set(re.findall(r"image: *(\S+)", (BASE / "rayservice.yaml").read_text())) == {"headrace"}
    ray_version = service["spec"]["rayClusterConfig"]["rayVersion"]
    assert f"\nray=={ray_version}\n" in (ROOT / "constraints.txt").read_text()


def test_the_image_gets_every_package_of_the_wheel():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    copied = set(re.findall(r"^COPY (\w+) \1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    let_in = set(re.findall(r"^!(\w+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert copied == set(wheel["packages"])
    assert copied <= let_in
