"""Is the Ray that a run starts closed to all who have not its token: dashboard, jobs and its own protocol?"""

import os
import random
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import httpx
import psutil
import pytest

from cluster import launch
from cluster.processes import end_run, marked
from headrace.folders import made, run_folder
from headrace.serve_rest import ServeRest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

START_S = 240.0


@dataclass(frozen=True)
class Head:
    """A Ray as a run starts it, without a fleet."""

    run_id: str
    ports: launch.Ports
    token: Path

    def url(self, port: int) -> str:
        return f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    run_id, ports = secrets.token_hex(4), launch.free_ports(random.Random())
    with made(run_folder(run_id)) as folder:
        head = Head(run_id, ports, folder / "token")
        launch.write_token(head.token)
        environment = launch.environment(dict(os.environ), run_id=run_id, token=head.token, ports=ports)
        command = launch.ray_command(ports, folder=folder, cpus=2, gpus=0)
        keeper = launch.start(command, run_id=run_id, folder=folder, environment=environment)
        rest = ServeRest(head.url(ports.dashboard), head.token.read_text())
        try:
            end_s = monotonic() + START_S
            while not rest.is_up():
                assert monotonic() < end_s, (folder / "ray.log").read_text()
                with suppress(subprocess.TimeoutExpired):
                    pytest.fail(f"Ray ended, {keeper.wait(0.2)}: {(folder / 'ray.log').read_text()}")
            yield head
        finally:
            rest.close()
            keeper.terminate()
            with suppress(subprocess.TimeoutExpired):
                keeper.wait(15)
            assert end_run(run_id, grace_s=0) == ()


def test_all_of_its_ports_are_of_this_machine_alone(head: Head) -> None:
    found = []
    for process in marked(head.run_id):
        with suppress(psutil.NoSuchProcess):
            found += psutil.Process(process.pid).net_connections("inet")
    listening = {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN}
    assert "127.0.0.1" in listening
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_dashboard_and_jobs_do_nothing_for_who_has_no_token_or_a_wrong_one(head: Head, tmp_path: Path) -> None:
    mark = tmp_path / "was here"
    job = {"entrypoint": f"touch '{mark}'"}
    asked = [
        (head.ports.dashboard, "POST", "/api/jobs/", job),
        (head.ports.dashboard, "GET", "/api/jobs/", None),
        (head.ports.dashboard, "GET", "/api/serve/applications/", None),
        (head.ports.dashboard, "PUT", "/api/serve/applications/", {"applications": []}),
        (head.ports.dashboard, "DELETE", "/api/serve/applications/", None),
        (head.ports.dashboard, "GET", "/api/v0/nodes", None),
        (head.ports.dashboard, "GET", "/nodes?view=summary", None),
        (head.ports.dashboard, "GET", "/api/v0/logs", None),
        (head.ports.dashboard, "GET", "/worker/traceback?pid=1", None),
    ]
    with httpx.Client(trust_env=False, timeout=30) as http:
        for port, method, path, body in asked:
            for token, status in (("", 401), ("Bearer", 403), ("Bearer wrong", 403), ("Basic wrong", 403)):
                headers = {"authorization": token} if token else {}
                answer = http.request(method, head.url(port) + path, json=body, headers=headers)
                assert answer.status_code == status, (path, token)
        right = {"authorization": f"Bearer {head.token.read_text()}"}
        taken = http.get(f"{head.url(head.ports.dashboard)}/api/jobs/", headers=right)
        assert (taken.status_code, [one for one in taken.json() if one["type"] == "SUBMISSION"]) == (200, [])
    assert not mark.exists()


@pytest.mark.parametrize(
    "keys",
    [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "wrong"}],
    ids=["no token", "a wrong one"],
)
def test_its_own_protocol_is_closed_to_whom_has_no_token_or_a_wrong_one(head: Head, keys: dict[str, str]) -> None:
    refused = put(head, keys)
    assert refused.returncode != 0
    assert "authenticat" in refused.stderr.lower(), refused.stderr
    taken = put(head, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(head.token)})
    assert taken.returncode == 0, taken.stderr


def put(head: Head, keys: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Writes something into the cluster's store, by a process with these keys."""
    put_one = "GcsClient(address=sys.argv[1]).internal_kv_put(b'a', b'b', True)"
    code = f"import sys; from ray._raylet import GcsClient; {put_one}"
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | keys
    command = [sys.executable, "-c", code, f"127.0.0.1:{head.ports.gcs}"]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
