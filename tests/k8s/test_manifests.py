"""Would Kubernetes, KubeRay, Serve and Headrace take k8s/ as it is, and do its numbers fit together?"""

import copy
import gzip
import json
import random
import re
import shutil
import subprocess
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator
from ray.serve.schema import ServeDeploySchema

from autoscaling import ServePolicy
from cluster import launch
from deployments import app, declare
from deployments.fleet import load
from deployments.manifests import PLACES, render
from headrace.fetching import cache as model_cache
from headrace.k8s import in_pods
from tests.k8s.built import (
    FOLDERS,
    K8S,
    OVERLAYS,
    ROOT,
    Resource,
    built,
    clusters,
    declared,
    every,
    fleet_of,
    groups,
    kustomization,
    one,
    pods,
    read,
)

SCHEMAS = Path(__file__).parent / "schemas"
CUSTOM = ("RayService", "RayJob", "PodMonitor", "PrometheusRule")
KUBERNETES = ("1.37", "1.36", "1.35")

places = pytest.mark.parametrize("place", OVERLAYS)


def complaints(resource: Resource) -> list[str]:
    """Of a custom resource's own schema."""
    return [f"{error.json_path}: {error.message}" for error in validator(resource["kind"]).iter_errors(resource)]


@cache
def validator(kind: str) -> Draft202012Validator:
    schema = json.loads(gzip.decompress((SCHEMAS / f"{kind.lower()}-v1.json.gz").read_bytes()))
    return Draft202012Validator(closed(schema))


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


def deployments(folder: str) -> dict[str, Resource]:
    """What is said of each to Serve, by name."""
    return {each["name"]: each for each in declared(folder)["applications"][0]["deployments"]}


def main_container(group: Resource) -> Resource:
    (container,) = group["template"]["spec"]["containers"]
    return container


# What is on disk


@places
def test_k8s_is_what_the_command_renders(place: str) -> None:
    fleet, fetched = in_pods(load(K8S / "overlays" / place / "fleet.yaml"))
    for name, text in render(fleet, PLACES[place], fetched).items():
        assert (K8S / name).read_text() == text, (
            f"headrace k8s render k8s/overlays/{place}/fleet.yaml --overlay {place}"
        )


def test_there_is_no_file_that_nothing_names() -> None:
    named = {K8S / "overlays" / place / "fleet.yaml" for place in OVERLAYS}
    for folder in (K8S / name for name in ("base", *FOLDERS)):
        rules = kustomization(folder)
        generated = [file for each in rules.get("configMapGenerator", []) for file in each["files"]]
        patches = [patch["path"] for patch in rules.get("patches", [])]
        named |= {folder / name for name in ("kustomization.yaml", *rules["resources"], *generated, *patches)}
    assert {path for path in K8S.rglob("*") if path.is_file()} == {path for path in named if not path.is_dir()}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("folder", FOLDERS)
def test_kubectl_builds_the_same(folder: str) -> None:
    command = ["kubectl", "kustomize", str(K8S / folder)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def by_name(resources: list[Resource]) -> list[Resource]:
        return sorted(resources, key=lambda each: (each["kind"], each["metadata"]["name"]))

    assert by_name(list(yaml.load_all(shown, Loader=yaml.CSafeLoader))) == by_name(built(folder))


# Schemas


@pytest.mark.parametrize("folder", FOLDERS)
def test_custom_resources_fit_the_schemas_of_their_operators(folder: str) -> None:
    custom = [each for each in built(folder) if each["kind"] in CUSTOM]
    assert {each["metadata"]["name"]: complaints(each) for each in custom if complaints(each)} == {}
    assert custom


@pytest.mark.parametrize("folder", FOLDERS)
def test_kuberay_would_not_refuse_a_cluster(folder: str) -> None:
    """By what its schemas can't say (ray-operator/controllers/ray/utils/validation.go)."""
    for spec in clusters(folder):
        for group in (spec["headGroupSpec"], *spec.get("workerGroupSpecs", [])):
            assert "labels" not in group["rayStartParams"], "the field of the group is for them"
            assert "resources" not in group, "num-cpus is among the arguments already"
            assert "restartPolicy" not in group["template"]["spec"], "the autoscaler's second version sets it"
            assert not {"redis-password", "redis-username"} & group["rayStartParams"].keys()
            for key, value in group.get("labels", {}).items():
                assert re.fullmatch(r"([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", key)
                assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", value)
        store = spec.get("gcsFaultToleranceOptions", {"backend": "rocksdb"})
        assert store["backend"] == "rocksdb"
        assert not store.keys() - {"backend", "storage"}
    for job in every(folder, "RayJob"):
        assert job["spec"]["shutdownAfterJobFinishes"] or "ttlSecondsAfterFinished" not in job["spec"]


def test_what_production_needs_fits_the_schemas_of_kubernetes() -> None:
    check_plain(("overlays/production", "compress"), KUBERNETES[0])


@pytest.mark.slow
@pytest.mark.parametrize("version", KUBERNETES)
def test_everything_fits_the_schemas_of_three_versions_of_kubernetes(version: str) -> None:
    check_plain(FOLDERS, version)


def check_plain(folders: Sequence[str], version: str) -> None:
    """Of what no operator defines, pods among them."""
    plain = [each for folder in folders for each in (*built(folder), *pods(folder)) if each["kind"] not in CUSTOM]
    different = {json.dumps(each, sort_keys=True): each for each in plain}
    for resource in different.values():
        kubernetes_validate.validate(resource, version, strict=True)
    assert {"Pod", "NetworkPolicy", "PodDisruptionBudget"} <= {each["kind"] for each in plain}


def test_a_misspelt_or_mistyped_field_would_be_noticed() -> None:
    service = one("overlays/dev", "RayService")
    misspelt, mistyped = copy.deepcopy(service), copy.deepcopy(service)
    misspelt["spec"]["rayClusterConfig"]["authOptions"]["mod"] = "token"
    mistyped["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["maxReplicas"] = "2"
    assert "'mod' was unexpected" in complaints(misspelt)[0]
    assert complaints(mistyped) == [
        "$.spec.rayClusterConfig.workerGroupSpecs[0].maxReplicas: '2' is not of type 'integer'"
    ]
    pod = copy.deepcopy(pods("overlays/dev")[0])
    pod["spec"]["fsGroup"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="fsGroup"):
        kubernetes_validate.validate(pod, "1.37", strict=True)


# What Serve is told


def test_serve_takes_the_configuration_and_headrace_declares_it_so(overlay: str) -> None:
    config, fleet = copy.deepcopy(declared(overlay)), fleet_of(overlay)
    assert [each.name for each in ServeDeploySchema.model_validate(config).applications] == ["headrace"]
    del config["applications"][0]["deployments"]
    assert config == declare.schema(fleet)
    ServePolicy(**config["applications"][0]["autoscaling_policy"]["policy_kwargs"])


@pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")
def test_what_our_builder_makes_takes_what_is_said_of_each_deployment(overlay: str) -> None:
    (application,) = declared(overlay)["applications"]
    router = app.build(fleet_of(overlay))._bound_deployment
    made = {each.name: each for each in (router, *(one._bound_deployment for one in router.init_args[1].values()))}
    said = {
        each["name"]: {key: value for key, value in each.items() if key != "name"}
        for each in application["deployments"]
    }
    assert said.keys() == made.keys()
    for name, options in said.items():
        changed = made[name].options(**options)
        assert changed.ray_actor_options.items() >= options["ray_actor_options"].items()


def test_each_deployment_runs_on_a_group_that_has_room_for_all_of_it(overlay: str) -> None:
    by_name, fleet, group = deployments(overlay), fleet_of(overlay), groups(overlay)
    router = by_name["router"]["ray_actor_options"]
    routers = group[router["label_selector"]["headrace.io/group"]]
    assert router["num_cpus"] == int(routers["rayStartParams"]["num-cpus"]), "one router fills a pod"
    assert routers["minReplicas"] == fleet.router.replicas
    assert routers["maxReplicas"] == fleet.router.replicas + 1, "an update starts one more first"
    pods_of = {name: [0, 0] for name in group if name != "routers"}
    for model in fleet.engines:
        engine = by_name[declare.engine_name(model.name)]
        (selector,) = engine["placement_group_bundle_label_selector"]
        name = selector["headrace.io/group"]
        assert group[name]["labels"] == selector
        asked = sum(bundle["CPU"] for bundle in engine["placement_group_bundles"])
        assert asked == model.nodes * int(group[name]["rayStartParams"]["num-cpus"])
        gpus = sum(bundle.get("GPU", 0) for bundle in engine["placement_group_bundles"])
        has = int(main_container(group[name])["resources"]["limits"].get("nvidia.com/gpu", 0))
        assert gpus == model.nodes * has
        assert has in (0, asked // model.nodes)
        assert has % model.tensor == 0 or not has, "no layer is split over machines"
        for end, replicas in enumerate((model.replicas.min, model.replicas.max)):
            pods_of[name][end] += model.nodes * replicas
    assert pods_of == {name: [group[name]["minReplicas"], group[name]["maxReplicas"]] for name in pods_of}


def test_the_head_carries_no_replica_and_an_update_wants_no_second_cluster(overlay: str) -> None:
    spec = one(overlay, "RayService")["spec"]
    assert spec["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["excludeHeadPodFromServeSvc"] is True
    assert spec["upgradeStrategy"] == {"type": "None"}


def test_engines_of_variants_of_one_size_share_a_group_with_those_of_models(with_variants: str) -> None:
    group = {name: (each["minReplicas"], each["maxReplicas"]) for name, each in groups(with_variants).items()}
    assert group == {
        "routers": (2, 3),
        "engines-4gpu": (2 * 1 + 1, 2 * 2 + 3),
        "engines-2gpu": (0 + 2, 5 + 4),
        "engines-1gpu": (0, 2),
    }
    on = {
        name: each["placement_group_bundle_label_selector"][0]["headrace.io/group"]
        for name, each in deployments(with_variants).items()
        if name != "router"
    }
    assert on == {
        "engine-large": "engines-4gpu",
        "engine-large-w8": "engines-4gpu",
        "engine-large-w4": "engines-2gpu",
        "engine-small": "engines-2gpu",
        "engine-small-w4": "engines-1gpu",
    }
    policy = declared(with_variants)["applications"][0]["autoscaling_policy"]["policy_kwargs"]
    assert policy["variants"] == [["large", "large-w8", "large-w4"], ["small", "small-w4"]]


# Requests, readiness, endings


def test_requests_reach_routers_that_are_ready_and_nothing_else(overlay: str) -> None:
    (port,) = one(overlay, "Service")["spec"]["ports"]
    selector = one(overlay, "Service")["spec"]["selector"].items()
    chosen = [pod for pod in pods(overlay) if selector <= pod["metadata"]["labels"].items()]
    assert [pod["metadata"]["name"] for pod in chosen] == ["routers"]
    (container,) = chosen[0]["spec"]["containers"]
    (serving,) = (each for each in container["ports"] if each["name"] == port["targetPort"])
    fleet = fleet_of(overlay)
    assert (fleet.router.host, fleet.router.port) == ("0.0.0.0", serving["containerPort"])
    probe = container["readinessProbe"]
    assert probe["httpGet"] == {"path": "/ready", "port": port["targetPort"]}
    assert fleet.router.settle_s > 2 * probe["periodSeconds"] * probe["failureThreshold"]


def test_kuberay_needs_no_probe_of_its_own_and_finds_the_head(overlay: str) -> None:
    for pod in pods(overlay):
        container = pod["spec"]["containers"][0]
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()
        # Its service for the head of a RayService looks for the value that it would set itself.
        assert "app.kubernetes.io/name" not in pod["metadata"]["labels"]


def test_a_pod_s_replicas_are_replaced_and_end_their_streams_before_it_goes(overlay: str) -> None:
    fleet = fleet_of(overlay)
    for group in groups(overlay).values():
        command = main_container(group)["lifecycle"]["preStop"]["exec"]["command"][-1]
        deadline = re.search(r"--deadline-remaining-seconds (\d+)", command)
        assert deadline is not None
        # At no more than the grace Serve would end them at once, before others have started.
        assert int(deadline[1]) - declare.grace_s(fleet.router) >= 300
        assert group["template"]["spec"]["terminationGracePeriodSeconds"] > int(deadline[1])


def test_budgets_let_one_pod_go_and_keep_the_others(overlay: str) -> None:
    kept = {
        each["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]: each["spec"]["minAvailable"]
        for each in every(overlay, "PodDisruptionBudget")
    }
    always: dict[str, int] = {"router": 0, "engine": 0}
    for group in groups(overlay).values():
        always[group["template"]["metadata"]["labels"]["app.kubernetes.io/component"]] += group["minReplicas"]
    assert kept == {component: count - 1 for component, count in always.items() if count > 1}


# Models, environment, image


def test_models_are_fetched_to_where_the_fleet_looks_for_them(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = one(overlay, "ConfigMap", "headrace-environment")["data"]
    monkeypatch.setenv("HEADRACE_CACHE", environment["HEADRACE_CACHE"])
    fleet, said = fleet_of(overlay), deployments(overlay)
    wanted = {"routers": {model.source for model in fleet.models}}
    for engine in fleet.engines:
        (selector,) = said[declare.engine_name(engine.name)]["placement_group_bundle_label_selector"]
        artefact = Path(engine.source).is_relative_to(environment["HEADRACE_ARTEFACTS"])
        wanted.setdefault(selector["headrace.io/group"], set()).update(set() if artefact else {engine.source})
    claims = {each["metadata"]["name"] for each in every(overlay, "PersistentVolumeClaim")}
    fetched: dict[str, set[str]] = {}
    for name, group in groups(overlay).items():
        spec = group["template"]["spec"]
        fetched[name] = {
            str(model_cache.place(init["command"][-1].replace("/", "--"))) for init in spec["initContainers"]
        }
        mounts = [*(init["volumeMounts"] for init in spec["initContainers"]), main_container(group)["volumeMounts"]]
        assert all(same == mounts[0] for same in mounts)
        assert environment["HEADRACE_CACHE"] in {mount["mountPath"] for mount in mounts[0]}
        (models,) = (volume for volume in spec["volumes"] if volume["name"] == "models")
        assert models.get("persistentVolumeClaim", {"claimName": None})["claimName"] in claims or "emptyDir" in models
    assert fetched == wanted


def test_the_environment_is_that_of_a_local_run() -> None:
    local = launch.environment({}, run_id="run", token=Path("token"), ports=launch.free_ports(random.Random(1)))
    for name, value in one("overlays/dev", "ConfigMap", "headrace-environment")["data"].items():
        assert isinstance(value, str)
        assert name in ("HEADRACE_CACHE", "HEADRACE_ARTEFACTS") or local[name] == value


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_hubs_token_is_given_to_what_fetches_alone_and_no_secret_is_written_down(folder: str) -> None:
    token = {"secretKeyRef": {"name": "headrace-hub", "key": "token", "optional": True}}
    told, fetching = set(), set()
    for pod in pods(folder):
        for container in [*pod["spec"]["containers"], *pod["spec"]["initContainers"]]:
            where = pod["metadata"]["name"], container["name"]
            if {"name": "HF_TOKEN", "valueFrom": token} in container.get("env", []):
                told.add(where)
            if container.get("command", [])[:2] == ["headrace", "fetch"] or where == ("head", "ray-head"):
                fetching.add(where)
    if folder != "compress":
        fetching.remove(("head", "ray-head"))  # which has no model
    assert told == fetching != set()
    assert every(folder, "Secret") == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_one_image_of_this_version_and_of_the_locked_ray_is_used_everywhere(folder: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    variant = {"overlays/dev": "cpu", "compress": "gpu-compress"}.get(folder, "gpu")
    containers = [each for pod in pods(folder) for key in ("containers", "initContainers") for each in pod["spec"][key]]
    assert {each["image"] for each in containers} == {f"headrace:{project['version']}-{variant}"}
    for spec in clusters(folder):
        assert f"\nray=={spec['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()


def test_the_image_gets_every_package_of_the_wheel_and_the_pods_user() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    text = (ROOT / "Dockerfile").read_text()
    copied = set(re.findall(r"^COPY (\w+) \1$", text, re.MULTILINE))
    let_in = set(re.findall(r"^!(\w+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert copied == set(wheel["packages"])
    assert copied <= let_in
    (user,) = {pod["spec"]["securityContext"]["runAsUser"] for folder in FOLDERS for pod in pods(folder)}
    assert re.findall(r"^USER (\d+)$", text, re.MULTILINE) == [str(user)]


def test_compressed_models_lie_where_a_fleet_may_look_for_them() -> None:
    (job,) = every("compress", "RayJob")
    environment = one("overlays/gpu", "ConfigMap", "headrace-environment")["data"]
    assert Path(environment["HEADRACE_ARTEFACTS"]).is_relative_to(environment["HEADRACE_CACHE"])
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (claimed,) = (each["persistentVolumeClaim"] for each in head["volumes"] if each["name"] == "models")
    assert claimed["claimName"] in {each["metadata"]["name"] for each in every("overlays/gpu", "PersistentVolumeClaim")}
    assert read(K8S / "base" / "namespace.yaml")[0]["metadata"]["name"] == job["metadata"]["namespace"]
