"""Fetching from a hub: a server on this machine that speaks its protocol stands for it."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

WEIGHTS = bytes(range(256)) * 4096
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FETCH = (
    "import sys; from rich.console import Console; from headrace.fetching import fetch, FetchError\n"
    "try: print(fetch(sys.argv[1], console=Console(width=500)))\n"
    "except FetchError as error: sys.exit(str(error))"
)


@dataclass
class Hub:
    """One model on a hub."""

    files: dict[str, bytes]
    hold_at_half: bool = False
    gated: bool = False
    half_sent: threading.Event = field(default_factory=threading.Event)
    served: set[str] = field(default_factory=set)
    claimed: dict[str, str] = field(default_factory=dict)
    url: str = ""

    def sha256(self, name: str) -> str:
        return self.claimed.get(name) or hashlib.sha256(self.files[name]).hexdigest()

    def siblings(self) -> list[dict]:
        return [
            {
                "rfilename": name,
                "size": len(data),
                "blobId": hashlib.sha1(data).hexdigest(),
                "lfs": {"sha256": self.sha256(name), "size": len(data), "pointerSize": 130},
            }
            for name, data in self.files.items()
        ]

    def tree(self) -> list[dict]:
        return [
            {
                "type": "file",
                "path": name,
                "size": len(data),
                "oid": hashlib.sha1(data).hexdigest(),
                "lfs": {"oid": self.sha256(name), "size": len(data), "pointerSize": 130},
            }
            for name, data in self.files.items()
        ]


class Handler(BaseHTTPRequestHandler):
    """What the hub answers."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        if not path.removeprefix("/api/models").startswith("/owner/model"):
            self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)
        elif self.hub.gated:
            self.send(403, b"{}", {"X-Error-Code": "GatedRepo"}, with_body)
        elif path == "/api/models/owner/model":
            info = {"id": "owner/model", "sha": COMMIT, "siblings": self.hub.siblings()}
            self.send(200, json.dumps(info).encode(), {}, with_body)
        elif path == f"/api/models/owner/model/tree/{COMMIT}":
            self.send(200, json.dumps(self.hub.tree()).encode(), {}, with_body)
        else:
            self.send_file(path.partition(f"/resolve/{COMMIT}/")[2], with_body)

    def send_file(self, name: str, with_body: bool) -> None:
        data = self.hub.files[name]
        headers = {
            "ETag": f'"{self.hub.sha256(name)}"',
            "X-Repo-Commit": COMMIT,
            "X-Linked-Size": str(len(data)),
        }
        if with_body:
            self.hub.served.add(name)
        if with_body and self.hub.hold_at_half and name.endswith(".safetensors"):
            self.send_half(data, headers)
        else:
            self.send(200, data, headers, with_body)

    def send_half(self, data: bytes, headers: dict[str, str]) -> None:
        self.start(200, len(data), headers)
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        self.hub.half_sent.set()
        with suppress(ConnectionError):
            self.rfile.read(1)  # returns when the client is dead

    def send(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.start(status, len(body), headers)
        if with_body:
            self.wfile.write(body)

    def start(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(length)}).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(hub: Hub) -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def hub() -> Iterator[Hub]:
    files = {
        "config.json": b'{"model_type": "unheard_of"}',
        "tokenizer.json": b"{}",
        "model.safetensors": WEIGHTS,
        "pytorch_model.bin": WEIGHTS,
        "onnx/model.json": b"{}",
        "README.md": b"",
    }
    with served(Hub(files=files)) as running:
        yield running


def start_fetching(hub: Hub, cache: Path, source: str = "owner/model") -> subprocess.Popen[str]:
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(cache / "hf"),
        "HEADRACE_CACHE": str(cache),
        "NO_PROXY": "127.0.0.1",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, source],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def fetched(hub: Hub, cache: Path, source: str = "owner/model") -> tuple[int, str, str]:
    child = start_fetching(hub, cache, source)
    output, errors = child.communicate()
    return child.returncode, output, errors.strip()


@pytest.mark.slow
def test_a_hub_model_comes_without_duplicates_of_its_weights_and_is_then_at_hand_offline(hub: Hub, tmp_path: Path):
    status, output, errors = fetched(hub, tmp_path)
    assert status == 0, errors
    folder = tmp_path / "models" / "owner--model"
    assert output.splitlines()[-1] == str(folder)
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "headrace_checksums.json",
    }
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert "owner/model: no reference log-probabilities: transformers can't run it" in output
    nowhere = Hub(files={}, url="http://127.0.0.1:9")
    assert fetched(nowhere, tmp_path)[:2] == (0, f"{folder}\n")


@pytest.mark.slow
def test_a_model_that_pools_comes_with_what_says_how(hub: Hub, tmp_path: Path):
    """Without it vLLM would pool in another way, and say nothing."""
    hub.files |= {"modules.json": b"[]", "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}'}
    status, output, errors = fetched(hub, tmp_path)
    assert status == 0, errors
    folder = tmp_path / "models" / "owner--model"
    assert (folder / "1_Pooling" / "config.json").read_bytes() == hub.files["1_Pooling/config.json"]
    assert not (folder / "onnx").exists()
    assert "owner/model: no reference vectors: it pools by no way that its modules tell" in output


@pytest.mark.slow
def test_a_killed_download_keeps_the_files_it_had(hub: Hub, tmp_path: Path):
    hub.hold_at_half = True
    child = start_fetching(hub, tmp_path)
    assert hub.half_sent.wait(120), child.communicate()
    unfinished = tmp_path / "models" / ".owner--model.partial"
    while not all((unfinished / name).exists() for name in ("config.json", "tokenizer.json")):
        assert child.poll() is None, "it should be waiting for the second half"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert list(unfinished.rglob("*.incomplete"))
    assert not (tmp_path / "models" / "owner--model").exists()
    hub.hold_at_half = False
    hub.served.clear()
    status, _, errors = fetched(hub, tmp_path)
    assert status == 0, errors
    assert hub.served == {"model.safetensors"}
    assert (tmp_path / "models" / "owner--model" / "model.safetensors").read_bytes() == WEIGHTS
    assert not list(tmp_path.rglob("*.incomplete"))


def test_a_file_damaged_on_the_way_is_found_by_the_hubs_own_sum(hub: Hub, tmp_path: Path):
    hub.claimed["model.safetensors"] = "0" * 64
    status, _, errors = fetched(hub, tmp_path)
    assert status == 1
    assert errors == ("owner/model: model.safetensors was damaged on the way; fetch again, the rest is kept")
    assert not (tmp_path / "models" / "owner--model").exists()


def test_a_model_without_safetensors_is_refused_before_any_download(hub: Hub, tmp_path: Path):
    del hub.files["model.safetensors"]
    status, _, errors = fetched(hub, tmp_path)
    assert (status, errors) == (
        1,
        "owner/model: it has no safetensors weights, the only kind that is fetched",
    )
    assert hub.served == set()


def test_a_model_that_does_not_exist_is_one_clear_line(hub: Hub, tmp_path: Path):
    status, _, errors = fetched(hub, tmp_path, "nobody/other")
    assert status == 1
    assert errors == (
        f"nobody/other: no such folder here, no such model on {hub.url}; check the name, or set HF_TOKEN "
        "if it is private"
    )


def test_a_gated_model_is_one_clear_line_with_the_way_in(hub: Hub, tmp_path: Path):
    hub.gated = True
    status, _, errors = fetched(hub, tmp_path)
    assert status == 1
    assert errors == (
        f"owner/model: gated; accept its terms on {hub.url}/owner/model, then set HF_TOKEN to a token of that account"
    )


def test_a_hub_that_is_not_there_is_one_clear_line(tmp_path: Path):
    status, _, errors = fetched(Hub(files={}, url="http://127.0.0.1:9"), tmp_path)
    assert status == 1
    assert errors.startswith("owner/model: http://127.0.0.1:9 can't be reached (")
    assert "\n" not in errors
