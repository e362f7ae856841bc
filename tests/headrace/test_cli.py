"""The command line: quick help, one line and exit code 2 for what the user got wrong."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = ("serve", "stop", "status", "chat", "fetch", "compress", "plan", "calibrate", "init", "doctor")


def headrace(*words: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace", *words],
        env={**os.environ, "HEADRACE_STATE": str(folder / "state"), **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_every_command_shows_examples(tmp_path: Path) -> None:
    for command in COMMANDS:
        shown = headrace(command, "--help", folder=tmp_path)
        assert shown.returncode == 0
        assert f"\n  headrace {command}" in shown.stdout


def test_help_loads_neither_ray_nor_torch_nor_pydantic(tmp_path: Path) -> None:
    code = (
        "import sys; from headrace import cli; sys.argv = ['headrace', '--help']\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('ray', 'torch', 'vllm', 'pydantic', 'httpx') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("serve",), "what should be served? There is no fleet.yaml here"),
        (("serve", "gone.yaml"), "gone.yaml: no such file or directory"),
        (("serve", "wrong.yaml"), "wrong.yaml: models[0].sauce: unknown field, did you mean source?"),
        (("serve", "wrong.yaml", "--", "--max-model-len", "1"), "engine arguments after -- go with a MODEL"),
        (("serve", "tiny", "--", "1024"), "engine arguments look like --max-model-len 1024, got '1024'"),
        (
            ("serve", "tiny", "--", "--tensor-parallel-size", "2"),
            "models[0].engine: tensor_parallel_size is set",
        ),
        (("serve", "tiny", "--prot", "1"), "No such option: --prot"),
        (("serve", "tiny", "--port", "0"), "Invalid value for '--port'"),
        (("serve", "tiny", "--once"), "--once goes with --ask"),
        (("serve", "tiny", "--once", "--ask", "?", "--detach"), "--once ends after the answer"),
        (("serve", "tiny", "--name", "a/b"), "--name: should be letters"),
        (("serve", "tiny", "--host", "203.0.113.9"), "router.host: can't listen on 203.0.113.9"),
        (("serve", "tiny", "--host", "no such host"), "router.host: 'no such host' is no address"),
        (("nonsense",), "No such command 'nonsense'"),
        (("init", "no/such/folder.yaml"), "no/such/folder.yaml: no such file or directory"),
    ],
)
def test_bad_input_ends_with_one_line_and_code_two(words: tuple[str, ...], line: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("models:\n- name: a\n  sauce: b\n  source: tiny\n")
    refused = headrace(*words, folder=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"headrace: {line}")
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["status", "chat"])
def test_without_a_run_the_way_to_start_one_is_named(command: str, tmp_path: Path) -> None:
    refused = headrace(command, folder=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr == "headrace: no run 'default' on this machine: `headrace serve` starts one\n"


def test_stopping_nothing_is_no_error(tmp_path: Path) -> None:
    stopped = headrace("stop", folder=tmp_path)
    assert stopped.returncode == 0
    assert "nothing to end" in stopped.stdout


def test_a_port_in_use_names_who_holds_it_and_another_way(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        refused = headrace("serve", "tiny", "--port", port, folder=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"headrace: port {port} is in use by pid {os.getpid()} (")
    assert refused.stderr.endswith("or take another with --port\n")


def test_a_model_that_is_nowhere_says_what_there_is(tmp_path: Path) -> None:
    refused = headrace("serve", "smolm2", "--port", "8999", folder=tmp_path)
    assert refused.returncode == 1
    assert "did you mean smollm2?" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_init_writes_a_file_once(tmp_path: Path) -> None:
    assert headrace("init", folder=tmp_path).returncode == 0
    written = (tmp_path / "fleet.yaml").read_text()
    (tmp_path / "fleet.yaml").write_text("mine")
    refused = headrace("init", folder=tmp_path)
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert (tmp_path / "fleet.yaml").read_text() == "mine"
    assert headrace("init", "--force", folder=tmp_path).returncode == 0
    assert (tmp_path / "fleet.yaml").read_text() == written


def test_the_doctor_finds_what_serving_needs(tmp_path: Path) -> None:
    told = headrace("doctor", folder=tmp_path)
    lines = told.stdout.splitlines()
    assert all(line.startswith(("ok   ", "warn ", "FAIL ")) for line in lines)
    assert any(line.startswith("ok   python: 3.1") for line in lines)
    assert told.returncode == any(line.startswith("FAIL") for line in lines)
