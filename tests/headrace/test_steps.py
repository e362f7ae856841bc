"""Progress reads well in a log and in a terminal."""

import io
import re

import pytest
from rich.console import Console

from headrace.steps import Steps


def shown(*, terminal: bool, fails: bool = False) -> str:
    output = io.StringIO()
    steps = Steps(Console(file=output, force_terminal=terminal, width=60))
    try:
        with steps.step("Deploying", "Ready") as update:
            update("1 [starting]")
            update("1 [starting]")
            update("1 running")
            if fails:
                raise ValueError
    except ValueError:
        pass
    return re.sub(r"\d+(\.\d+)? s", "N s", output.getvalue())


def test_a_log_gets_one_line_for_each_change() -> None:
    assert shown(terminal=False).splitlines() == [
        "  Deploying ...",
        "  Deploying: 1 [starting]  N s",
        "  Deploying: 1 running  N s",
        "✓ Ready  N s",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_what_failed_is_never_shown_as_done(terminal: bool) -> None:
    assert "✓ Ready" in shown(terminal=terminal)
    assert "✓ Ready" not in shown(terminal=terminal, fails=True)


def test_a_long_line_is_not_broken() -> None:
    output = io.StringIO()
    Steps(Console(file=output, width=20)).say("curl " + "x" * 100)
    assert output.getvalue().count("\n") == 1
