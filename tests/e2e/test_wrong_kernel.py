"""A CPU whose compiled bfloat16 is wrong must not serve it; a CPU whose is right may."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.prove, pytest.mark.timeout(580)]


def test_compiled_bfloat16_is_refused_where_it_is_wrong(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    question = ["--ask", "What is the capital of France?", "--once", "--port", port]
    compiled = ["--", "--enforce-eager", "false", "--dtype", "bfloat16", "--max-model-len", "2048"]
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "serve", "smollm2", *question, *compiled],
        env=os.environ | {"HEADRACE_STATE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=570,
        check=False,
    )
    print(done.stdout, done.stderr)
    if done.returncode == 0:
        assert "Paris" in done.stdout
    else:
        assert "numbers check failed" in done.stderr
        assert "nats per token" in done.stderr
