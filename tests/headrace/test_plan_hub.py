"""A model on a hub is planned from config.json and headers: its weights stay there."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.headrace.plan_models import LLAMA_8B, header
from tests.headrace.test_fetching_hub import Hub, served


@pytest.fixture
def hub() -> Iterator[Hub]:
    files = {"config.json": json.dumps(LLAMA_8B).encode(), "model.safetensors": header(LLAMA_8B)}
    with served(Hub(files=files)) as running:
        yield running


def planned(hub: Hub, folder: Path, source: str = "owner/model", **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "HEADRACE_CACHE": str(folder),
        "HEADRACE_STATE": str(folder / "state"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "NO_PROXY": "127.0.0.1",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    return subprocess.run(
        [sys.executable, "-m", "headrace", "plan", source, "--gpu", "h100", "--json"],
        env=environment | more,
        capture_output=True,
        text=True,
        check=False,
    )


def test_headers_are_enough_and_nothing_is_kept(hub: Hub, tmp_path: Path) -> None:
    done = planned(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    model = json.loads(done.stdout)["model"]
    assert model["weights_bytes"] == 16_060_522_496
    assert model["origin"] == "the headers of its files on the hub"
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_model_that_is_not_there_is_one_line(hub: Hub, tmp_path: Path) -> None:
    done = planned(hub, tmp_path, "nobody/other")
    assert done.returncode == 2
    assert re.fullmatch(r"headrace: MODEL: nobody/other: no such folder here, no such model on .*\n", done.stderr)


def test_a_model_without_safetensors_is_one_line(hub: Hub, tmp_path: Path) -> None:
    hub.files["pytorch_model.bin"] = hub.files.pop("model.safetensors")
    done = planned(hub, tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "headrace: MODEL: owner/model: it has no safetensors weights, the only kind that is planned for\n"
    )


def test_offline_is_one_line(hub: Hub, tmp_path: Path) -> None:
    done = planned(hub, tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert done.stderr == "headrace: MODEL: owner/model: not in the cache, and HF_HUB_OFFLINE forbids to fetch it\n"
