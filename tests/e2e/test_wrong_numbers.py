"""A checkpoint with one damaged tensor never serves: the command says by how much it is off, and leaves nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.fetching import resolve
from tests.e2e.typed import free_port

pytestmark = [pytest.mark.prove, pytest.mark.timeout(300)]

TENSOR = "model.layers.1.mlp.down_proj.weight"


def test_a_checkpoint_with_one_tensor_scaled_by_two_is_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(resolve("tiny"), damaged)
    _scale(damaged / "model.safetensors")
    port = str(free_port())
    refused = subprocess.run(
        [sys.executable, "-m", "headrace", "serve", str(damaged), "--port", port, "--", "--dtype", "float32"],
        env=os.environ | {"HEADRACE_STATE": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert refused.returncode == 1, refused.stdout
    assert "numbers check failed: it differs from the reference" in refused.stderr
    assert "nats per token on average; good float32 engines stay under" in refused.stderr


def _scale(weights: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    tensors[TENSOR] = tensors[TENSOR] * 2
    save_file(tensors, weights, metadata={"format": "pt"})
