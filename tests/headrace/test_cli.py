"""The command line: quick help, one line and exit code 2 for what the user got wrong."""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from headrace import cli, submit

COMMANDS = (
    "serve",
    "stop",
    "status",
    "scaling",
    "chat",
    "fetch",
    "compress",
    "plan",
    "calibrate",
    "init",
    "doctor",
    "k8s",
    "keys",
    "usage",
    "batch",
)


@dataclass(frozen=True)
class Ended:
    """A command that ended."""

    returncode: int
    stdout: str
    stderr: str


class Typing(Protocol):
    def __call__(self, *words: str) -> Ended: ...


@pytest.fixture
def headrace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typing:
    """Types a command in an empty folder, within this process: starting Python takes longer than most commands."""
    monkeypatch.setenv("HEADRACE_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)

    def typed(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["headrace", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capsys.readouterr()
        return Ended(int(ended.value.code or 0), shown.out, shown.err)

    return typed


def test_every_command_shows_examples(headrace: Typing) -> None:
    for command in COMMANDS:
        shown = headrace(command, "--help")
        assert shown.returncode == 0
        assert f"\n  headrace {command}" in shown.stdout


def test_help_loads_neither_ray_nor_torch_nor_pydantic(headrace: Typing) -> None:
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
        (("scaling", "--since", "soon"), "--since: should be like 90s, 30m, 1h or 2d, got 'soon'"),
        (("batch", "run", "gone.jsonl", "out", "--model", "tiny"), "gone.jsonl: no such file or folder"),
        (("batch", "run", "wrong.yaml", "out", "--model", "tiny"), "wrong.yaml: should be JSON lines, CSV or Parquet"),
        (("batch", "run", "gone.jsonl", "out"), "Missing option '--model'"),
        (("keys", "create", "--tenant", "a", "--budget-tokens", "5/week"), "--budget-tokens: should be like"),
        (("nonsense",), "No such command 'nonsense'"),
        (("init", "no/such/folder.yaml"), "no/such/folder.yaml: no such file or directory"),
    ],
)
def test_bad_input_ends_with_one_line_and_code_two(
    words: tuple[str, ...], line: str, tmp_path: Path, headrace: Typing
) -> None:
    (tmp_path / "wrong.yaml").write_text("models:\n- name: a\n  sauce: b\n  source: tiny\n")
    refused = headrace(*words)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"headrace: {line}")
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["status", "chat"])
def test_without_a_run_the_way_to_start_one_is_named(command: str, headrace: Typing) -> None:
    refused = headrace(command)
    assert refused.returncode == 1
    assert refused.stderr == "headrace: no run 'default' on this machine: `headrace serve` starts one\n"


def test_stopping_nothing_is_no_error(headrace: Typing) -> None:
    stopped = headrace("stop")
    assert stopped.returncode == 0
    assert "nothing to end" in stopped.stdout


def test_a_port_in_use_names_who_holds_it_and_another_way(headrace: Typing) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        refused = headrace("serve", "tiny", "--port", port)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"headrace: port {port} is in use by pid {os.getpid()} (")
    assert refused.stderr.endswith("or take another with --port\n")


def test_a_model_that_is_nowhere_says_what_there_is(headrace: Typing) -> None:
    refused = headrace("serve", "smolm2", "--port", "8999")
    assert refused.returncode == 1
    assert "did you mean smollm2?" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_init_writes_a_file_once(tmp_path: Path, headrace: Typing) -> None:
    assert headrace("init").returncode == 0
    written = (tmp_path / "fleet.yaml").read_text()
    (tmp_path / "fleet.yaml").write_text("mine")
    refused = headrace("init")
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert (tmp_path / "fleet.yaml").read_text() == "mine"
    assert headrace("init", "--force").returncode == 0
    assert (tmp_path / "fleet.yaml").read_text() == written


def test_the_doctor_finds_what_serving_needs(headrace: Typing) -> None:
    told = headrace("doctor")
    lines = told.stdout.splitlines()
    assert all(line.startswith(("ok   ", "warn ", "FAIL ")) for line in lines)
    assert any(line.startswith("ok   python: 3.1") for line in lines)
    assert told.returncode == any(line.startswith("FAIL") for line in lines)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("batch run in out --model m --gpus 2 -- --gpus 4", "batch run in out --model m -- --gpus 4"),
        ("batch run in out --cpus 1 -- --a -- --b", "batch run in out -- --a -- --b"),
        ("--gpus 2 -- batch run in out --detach -- --a", "batch run in out --detach -- --a"),
        ("compress m --to w8a8 --gpus 2", "compress m --to w8a8"),
    ],
)
def test_what_stands_after_two_dashes_belongs_to_the_command_that_is_submitted(
    headrace: Typing, monkeypatch: pytest.MonkeyPatch, typed: str, words: str
) -> None:
    submitted: list[submit.Wish] = []
    monkeypatch.setattr(submit, "command", submitted.append)
    assert headrace("submit", *typed.split()).returncode == 0
    (wish,) = submitted
    assert wish.words == words.split()
    assert wish.gpus == (2 if "--gpus 2" in typed else 0)
