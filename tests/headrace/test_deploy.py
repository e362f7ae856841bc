"""`headrace deploy` makes what runs into what a file says, shows the difference, and takes a failed update back."""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.deploy import Wish, command
from headrace.failure import Failure
from tests.headrace.http_answers import listening

PATH = "/api/serve/applications/"


@dataclass
class Serve:
    """A head whose Serve takes configurations. One with a model of this name fails."""

    url: str = ""
    token: str = "secret"
    cpus: float = 8.0
    gpu_nodes: list[dict[str, Any]] = field(default_factory=list)
    """Beside the head: resources and labels."""
    applications: dict[str, Any] = field(default_factory=dict)
    puts: list[dict[str, Any]] = field(default_factory=list)
    clock_s: float = 1.0

    def answer(self, method: str, path: str, token: str, body: str) -> tuple[int, str]:
        status, said = self.respond(method, path, token, body)
        return status, json.dumps(said)

    def respond(self, method: str, path: str, token: str, body: str) -> tuple[int, Any]:
        if token != f"Bearer {self.token}":
            return 401, {}
        if path == "/api/ray/version":
            return 200, {}
        if path.startswith("/api/v0/nodes"):
            nodes = [
                {"state": "ALIVE", "resources_total": {"CPU": self.cpus}},
                {"state": "DEAD", "resources_total": {"CPU": 64.0}},
                *({"state": "ALIVE", **node} for node in self.gpu_nodes),
            ]
            nodes = [{"node_ip": f"10.0.0.{i}", "node_id": 56 * str(i), **node} for i, node in enumerate(nodes)]
            return 200, {"data": {"result": {"result": nodes}}}
        if method == "PUT":
            self.put(json.loads(body))
        return 200, {"applications": self.applications}

    def put(self, schema: dict[str, Any]) -> None:
        self.puts.append(schema)
        self.clock_s += 1
        self.applications = {config["name"]: self.application(config) for config in schema["applications"]}

    def application(self, config: dict[str, Any]) -> dict[str, Any]:
        models = config.get("args", {}).get("models", [])
        bad = [model["name"] for model in models if model["name"].startswith("bad")]
        engine = {
            "status": "DEPLOY_FAILED",
            "message": "The deployment failed to start 2 times. ValueError: no weights",
        }
        deployments = {f"engine-{name}": engine | {"replicas": []} for name in bad}
        return {
            "deployed_app_config": copy.deepcopy(config),
            "last_deployed_time_s": self.clock_s,
            "status": "DEPLOY_FAILED" if bad else "RUNNING",
            "message": "",
            "deployments": deployments,
        }


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    serve = Serve()
    monkeypatch.setenv("RAY_AUTH_TOKEN", serve.token)
    with listening(serve.answer) as serve.url:
        yield serve


@dataclass
class User:
    """Who writes a file and types the command."""

    folder: Path
    serve: Serve

    def deploys(self, *models: str, only_diff: bool = False, dry: bool = False, **others: Any) -> None:
        said = {"models": [{"name": name, "source": f"/models/{name}"} for name in models]} | others
        self.deploys_file(yaml.safe_dump(said), only_diff=only_diff, dry=dry)

    def deploys_file(self, text: str, **options: Any) -> None:
        file = self.folder / "fleet.yaml"
        file.write_text(text)
        flags = dict.fromkeys(("only_diff", "dry", "nodes_may_come"), False)
        asked: dict[str, Any] = {"address": self.serve.url, "token_file": None, **flags}
        command(Wish(file=str(file), name="default", patience_s=5.0, **asked | options))

    def refused(self, text: str, **options: Any) -> str:
        with pytest.raises(Failure) as failure:
            self.deploys_file(text, **options)
        assert failure.value.exit_code == 2
        return str(failure.value)


@pytest.fixture
def user(serve: Serve, tmp_path: Path) -> User:
    return User(tmp_path, serve)


ONE = "models: [{name: one, source: /models/one}]\n"


def test_a_cluster_serves_what_the_file_says_and_what_others_deployed(user: User, serve: Serve) -> None:
    other = {"name": "shop", "import_path": "shop:app"}
    serve.put({"applications": [other]})
    user.deploys("one", router={"replicas": 2})
    shop, ours = serve.puts[-1]["applications"]
    assert shop == other, "what is not ours stays: Serve ends what it is not told of"
    assert (ours["name"], ours["args"]["router"]["replicas"]) == ("headrace", 2)


def test_a_difference_is_shown_before_it_is_made(user: User, serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    user.deploys("one", "two")
    capsys.readouterr()
    user.deploys("one", "three", router={"replicas": 2}, only_diff=True)
    said = capsys.readouterr().out
    assert "~ router.replicas: 1 -> 2" in said
    assert "- starts engines of three" in said
    assert "- ends engines of two when they have answered" in said
    assert "- replaces engines of one" in said
    user.deploys("one", "three", router={"replicas": 2}, dry=True)
    assert "Nothing was changed" in capsys.readouterr().out
    assert len(serve.puts) == 1


def test_the_same_file_again_changes_nothing(user: User, serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    user.deploys("one")
    user.deploys("one")
    assert "nothing to change" in capsys.readouterr().out
    assert len(serve.puts) == 1


def test_a_failed_update_is_taken_back(user: User, serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    serve.put({"applications": [{"name": "shop", "import_path": "shop:app"}]})
    user.deploys("one")
    good = serve.puts[-1]
    with pytest.raises(Failure, match="what ran before runs again") as failure:
        user.deploys("one", "bad")
    assert failure.value.exit_code == 1
    assert "engine-bad: ValueError: no weights" in capsys.readouterr().out.replace(
        "The deployment failed to start 2 times. ", ""
    )
    assert serve.puts[-1]["applications"] == good["applications"]
    assert serve.applications["headrace"]["status"] == "RUNNING"


def test_a_first_deployment_that_fails_has_nothing_to_go_back_to(user: User, serve: Serve) -> None:
    with pytest.raises(Failure, match="no weights"):
        user.deploys("bad")
    assert len(serve.puts) == 1


def test_a_failed_one_is_deployed_again(user: User, serve: Serve) -> None:
    with pytest.raises(Failure):
        user.deploys("bad")
    with pytest.raises(Failure):
        user.deploys("bad")
    assert len(serve.puts) > 1


@pytest.mark.parametrize(
    ("text", "options", "named"),
    [
        (ONE, {"address": "head"}, "--address: should be the dashboard's, such as http://head:8265, got 'head'"),
        (ONE, {"address": "ftp://head:21"}, "--address"),
        (ONE, {"address": "http://head:port"}, "--address"),
        (ONE, {"token_file": "/nowhere/token"}, "--token-file: there is no file /nowhere/token"),
        (ONE.replace("/models/one", "tiny"), {}, "one: source: the sample 'tiny'"),
        (ONE.replace("}]", ", tensor_parallel: auto}]"), {}, "tensor_parallel"),
        (ONE.replace("}]", ", tensor_parallel: 9}]"), {}, "one: room for 0 of 1 replicas"),
        ("models: []", {}, "models"),
    ],
)
def test_what_can_not_work_is_refused_before_anything_changes(
    user: User, serve: Serve, text: str, options: dict[str, Any], named: str
) -> None:
    assert named in user.refused(text, **options)
    assert not serve.puts


LARGE = {
    "name": "large",
    "source": "/models/large",
    "tensor_parallel": 4,
    "pipeline_parallel": 2,
    "nodes": 2,
    "placement": {"devices": ["H100"], "interconnect": "rack"},
}


def gpu_node(gpus: float, rack: str, kind: str = "H100") -> dict[str, Any]:
    labels = {"ray.io/accelerator-type": kind, "rack": rack}
    return {"resources_total": {"CPU": 32.0, "GPU": gpus}, "labels": labels}


def test_stages_are_placed_on_nodes_of_one_rack_and_the_user_is_told_that_there_is_room(
    user: User, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    serve.gpu_nodes = [gpu_node(4, "1"), gpu_node(6, "2"), gpu_node(4, "2"), gpu_node(8, "1", kind="L4")]
    user.deploys_file(yaml.safe_dump({"models": [LARGE]}))
    assert "large has room, such as on 10.0.0.3 (333333), 10.0.0.4 (444444)" in capsys.readouterr().out
    assert serve.puts


def test_a_replica_for_which_there_is_no_room_is_refused_in_one_line_and_the_line_says_what_is_short(
    user: User, serve: Serve
) -> None:
    serve.gpu_nodes = [gpu_node(4, "1"), gpu_node(3, "2"), gpu_node(4, "2")]
    told = user.refused(yaml.safe_dump({"models": [LARGE]}))
    assert "large: room for 0 of 1 replicas beside the routers; each takes 2 times 4 GPU and 4 CPU" in told
    assert "all on nodes with one rack" in told
    assert "\n" not in told
    assert not serve.puts
    user.deploys_file(yaml.safe_dump({"models": [LARGE]}), nodes_may_come=True)
    assert serve.puts


def test_a_store_in_a_file_is_refused_where_routers_may_be_on_several_machines(user: User, serve: Serve) -> None:
    fleet = ONE + "store: {url: 'sqlite:////var/lib/headrace.sqlite'}\n"
    user.deploys_file(fleet)
    assert len(serve.puts) == 1
    serve.gpu_nodes = [{"resources_total": {"CPU": 8.0}}]
    told = user.refused(fleet + "scaling: {ttft_s: 2}\n")
    assert told.startswith(
        "store.url: a file serves routers of one machine, the cluster has 2: store: {url: 'postgresql"
    )
    assert len(serve.puts) == 1


def test_a_fleet_that_anybody_could_use_is_refused(user: User, serve: Serve) -> None:
    assert "nobody needs a key" in user.refused(ONE + "router: {host: 0.0.0.0}\n")
    user.deploys_file(ONE + "router: {host: 0.0.0.0, open: true}\n")
    assert len(serve.puts) == 1


def test_a_router_can_not_move_to_another_address_while_it_runs(user: User, serve: Serve) -> None:
    user.deploys("one")
    assert "router.host" in user.refused(ONE + "router: {host: 0.0.0.0}\n")
    assert len(serve.puts) == 1


def test_a_wrong_token_is_told_as_such(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    with pytest.raises(Failure, match="--token-file"):
        user.deploys("one")


def test_the_token_of_a_file_is_used(user: User, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("other\n")
    serve.token = "other"
    user.deploys_file(ONE, token_file=str(tmp_path / "token"))
    assert len(serve.puts) == 1
