"""`headrace plan` in folders of its own, for the tests of what it answers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.cli import app


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's is read or written; a terminal of 80 columns."""
    for name in ("HEADRACE_STATE", "HEADRACE_CACHE", "HEADRACE_ARTEFACTS", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The command; what it printed."""

    def run(*words: object) -> str:
        app(["plan", *map(str, words)], standalone_mode=False)
        return capsys.readouterr().out

    return run
