"""`headrace k8s render`: a folder that kustomize builds, or a line that says what can't run where."""

from pathlib import Path

import pytest
import yaml

from deployments.manifests import MADE
from headrace.failure import Failure
from headrace.k8s import render

ONE = "models: [{name: one, source: owner/one}]\n"
OPEN = "router: {open: true}\n"
SPLIT = "{name: split, source: owner/split, tensor_parallel: 2, pipeline_parallel: 2, nodes: %d}"


def refusal(tmp_path: Path, fleet: str, overlay: str) -> str:
    file = tmp_path / "fleet.yaml"
    file.write_text(fleet)
    with pytest.raises(Failure) as refused:
        render(str(file), overlay=overlay, out=str(tmp_path / "k8s"))
    assert refused.value.exit_code == 2
    assert not (tmp_path / "k8s").exists()
    return str(refused.value)


def test_a_fleet_becomes_a_base_an_overlay_and_a_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fleet.yaml").write_text(ONE + OPEN)
    render(str(tmp_path / "fleet.yaml"), overlay="gpu", out=str(tmp_path / "k8s"))
    written = {path.relative_to(tmp_path / "k8s").as_posix() for path in (tmp_path / "k8s").rglob("*.yaml")}
    assert {"base/kustomization.yaml", "overlays/gpu/kustomization.yaml", "compress/rayjob.yaml"} <= written
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if line.startswith("wrote")] != []
    assert shown.endswith(f"next: kubectl apply -k {tmp_path}/k8s/overlays/gpu\n")


def test_the_fleet_listens_everywhere_settles_and_reads_from_the_volume(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text(
        "models: [{name: one, source: owner/one}, {name: mine, source: /var/cache/headrace/artefacts/mine}]\n"
        "router: {settle_s: 25, port: 8100, open: true}\n"
    )
    render(str(tmp_path / "fleet.yaml"), overlay="dev", out=str(tmp_path / "k8s"))
    spec = yaml.safe_load((tmp_path / "k8s/overlays/dev/fleet-on-rayservice.yaml").read_text())["spec"]
    fleet = yaml.safe_load(spec["serveConfigV2"])["applications"][0]["args"]
    assert (fleet["router"]["host"], fleet["router"]["settle_s"]) == ("0.0.0.0", 25)
    assert [model["source"] for model in fleet["models"]] == [
        "/var/cache/headrace/models/owner--one",
        "/var/cache/headrace/artefacts/mine",
    ]
    routers = spec["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
    assert [init["command"] for init in routers["initContainers"]] == [["headrace", "fetch", "owner/one"]]
    assert {"name": "serve", "containerPort": 8100} in routers["containers"][0]["ports"]


def test_what_a_place_cannot_carry_is_refused_with_the_field(tmp_path: Path) -> None:
    across = f"models: [{SPLIT % 2}]\n"
    assert refusal(tmp_path, across, "gpu") == "split: nodes should be 1 in gpu, got 2"
    layers = f"models: [{SPLIT % 2}]\n".replace("pipeline_parallel: 2", "pipeline_parallel: 3")
    assert "nodes should divide pipeline_parallel" in refusal(tmp_path, layers, "nodes")
    chosen = across.replace("nodes: 2}", "nodes: 2, placement: {labels: {rack: r7}}}")
    assert refusal(tmp_path, chosen, "nodes").startswith("split: placement.labels should be left out")
    auto = "models: [{name: one, source: owner/one, tensor_parallel: auto}]\n"
    assert "tensor_parallel should be a number" in refusal(tmp_path, auto, "gpu")
    assert refusal(tmp_path, ONE, "production") == "router.replicas: should be at least 2 in production, got 1"
    assert "--overlay: should be one of dev, gpu, nodes, production" in refusal(tmp_path, ONE, "moon")


def test_routers_alone_reach_a_store_and_get_its_password(tmp_path: Path) -> None:
    store = "store: {url: 'postgresql+psycopg://headrace@db.example:5433/decisions'}\n"
    (tmp_path / "fleet.yaml").write_text(ONE + store)
    render(str(tmp_path / "fleet.yaml"), overlay="dev", out=str(tmp_path / "k8s"))
    overlay = tmp_path / "k8s" / "overlays" / "dev"
    (policy,) = yaml.safe_load_all((overlay / "network-policies.yaml").read_text())
    assert policy["spec"]["egress"] == [{"ports": [{"protocol": "TCP", "port": 5433}]}]
    (chosen,) = policy["spec"]["podSelector"]["matchExpressions"]
    assert chosen["values"] == ["router"]
    groups = yaml.safe_load((overlay / "fleet-on-rayservice.yaml").read_text())["spec"]["rayClusterConfig"]
    given = {
        group["groupName"]: "PGPASSWORD" in str(group["template"]["spec"]["containers"])
        for group in groups["workerGroupSpecs"]
    }
    assert given == {"routers": True, "engines-1cpu": False}


def test_a_fleet_that_anybody_could_use_is_refused_unless_it_says_so(tmp_path: Path) -> None:
    assert refusal(tmp_path, ONE, "dev").startswith(
        "router.host: 0.0.0.0 lets other machines in, and nobody needs a key"
    )
    tenants = f"tenants: [{{name: alpha, key_hashes: ['{'0' * 64}']}}]\n"
    for more in (OPEN, "router: {open: false}\n", tenants):
        (tmp_path / "fleet.yaml").write_text(ONE + more)
        render(str(tmp_path / "fleet.yaml"), overlay="dev", out=str(tmp_path / "k8s"))


def test_a_store_in_a_file_is_refused(tmp_path: Path) -> None:
    fleet = ONE + "store: {url: 'sqlite:////tmp/decisions.sqlite'}\n"
    assert refusal(tmp_path, fleet, "dev") == "store.url: should be a PostgreSQL, since pods share no file, or null"


def test_a_folder_of_this_machine_is_refused(tmp_path: Path) -> None:
    fleet = f"models: [{{name: one, source: {tmp_path}}}]\n"
    assert "below /var/cache/headrace" in refusal(tmp_path, fleet, "dev")


def test_what_a_former_fleet_needed_is_cleared_away_and_nothing_of_the_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, overlay = tmp_path / "fleet.yaml", tmp_path / "k8s" / "overlays" / "dev"
    file.write_text(ONE + "store: {url: 'postgresql+psycopg://headrace@db.example/decisions'}\n")
    render(str(file), overlay="dev", out=str(tmp_path / "k8s"))
    policies, rules = overlay / "network-policies.yaml", overlay / "kustomization.yaml"
    copied, named, unnamed = overlay / "copied.yaml", overlay / "named.yaml", overlay / "unnamed.yaml"
    copied.write_bytes(policies.read_bytes())
    named.write_text("kind: ConfigMap\n")
    unnamed.write_text("kind: Secret\n")
    more = ("named.yaml", "../../../fleet.yaml", "https://example.org/more")
    listed = "\n".join(f"- {name}" for name in (policies.name, *more))
    rules.write_text(rules.read_text().replace(f"- {policies.name}", listed))
    file.write_text(ONE + OPEN)
    capsys.readouterr()
    render(str(file), overlay="dev", out=str(tmp_path / "k8s"))
    assert not policies.exists()
    assert all(path.exists() for path in (copied, named, unnamed, file))
    assert [line for line in capsys.readouterr().out.splitlines() if "removed" in line] == [f"removed {policies}"]


@pytest.mark.parametrize("text", ["resources: [copied.yaml]", f"{MADE}resources: [copied.yaml", f"{MADE}- copied.yaml"])
def test_a_kustomization_that_is_not_ours_any_more_clears_nothing_away(tmp_path: Path, text: str) -> None:
    file, overlay = tmp_path / "fleet.yaml", tmp_path / "k8s" / "overlays" / "dev"
    file.write_text(ONE + OPEN)
    render(str(file), overlay="dev", out=str(tmp_path / "k8s"))
    (overlay / "copied.yaml").write_bytes((overlay / "fleet-on-rayservice.yaml").read_bytes())
    (overlay / "kustomization.yaml").write_text(text)
    render(str(file), overlay="dev", out=str(tmp_path / "k8s"))
    assert (overlay / "copied.yaml").exists()
    assert MADE in (overlay / "kustomization.yaml").read_text()
