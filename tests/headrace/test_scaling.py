"""`headrace scaling`: what was stored is shown as a table, JSON and a page; what is wrong is said in one line."""

import json
import time
from pathlib import Path

import pytest

from deployments.fleet import sqlite_url
from deployments.store import Store
from headrace.failure import Failure
from headrace.folders import store_file
from headrace.scaling import Options, changes, command, stored
from headrace.spans import span_s
from tests.deployments.decision_entries import entry

NOW_S = time.time()
TOLD = [
    entry(NOW_S - 7_300.0),
    entry(NOW_S - 300.0),
    entry(NOW_S - 240.0),
    entry(NOW_S - 180.0, 3),
    entry(NOW_S - 179.0, 3, starting=2),
    entry(NOW_S - 150.0, 3, running=3),
    entry(NOW_S - 120.0, 1, model="big.1", advice=True),
    entry(NOW_S - 90.0, 3, running=3),
]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default run's store, with decisions of the last hours."""
    monkeypatch.setenv("HEADRACE_STATE", str(tmp_path / "state"))
    store = Store(sqlite_url(store_file("default")))
    store.add_decisions(TOLD)
    store.close()
    return tmp_path


def asked(**changed: str | None) -> Options:
    return Options(**{"model": None, "since": "1h", "store": None, "run": "default"} | changed)  # type: ignore[arg-type]


def test_json_holds_every_decision_of_the_time_asked_for(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(asked(), as_json=True, plot=None)
    assert json.loads(capsys.readouterr().out) == {"format": 1, "decisions": TOLD[1:]}
    command(asked(since="3h", model="tiny"), as_json=True, plot=None)
    told = json.loads(capsys.readouterr().out)["decisions"]
    assert told == [one for one in TOLD if one["deployment"] == "engine-tiny"]


def test_the_table_shows_what_moved_with_its_reason_and_counts_the_rest(
    kept: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    command(asked(), as_json=False, plot=None)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0].split() == ["time", "model", "wanted", "running", "starting", "why"]
    assert lines[2].endswith("1 -> 3 replicas; 4 requests in engines, 2 queued; their time asks for 3")
    assert any("1 (advice)" in line and "big.1" in line for line in lines)
    assert lines[-2:] == [
        "1 more that changed nothing: --json has them",
        "advice: Ray Serve's own law scales these; wanted is what would have been done",
    ]
    assert len(changes(TOLD[1:])) == 6


def test_the_page_draws_each_model_and_writes_the_same_bytes_again(kept: Path) -> None:
    for name in ("one.html", "two.html"):
        command(asked(), as_json=True, plot=str(kept / name))
    page = (kept / "one.html").read_text()
    assert page == (kept / "two.html").read_text()
    assert page.count("<svg") == 2 * 3
    assert "1 -&gt; 3 replicas" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1.5m", 90), ("2h", 7_200), ("1d", 86_400)])
def test_times_are_written_with_their_unit(text: str, seconds: float) -> None:
    assert span_s(text) == seconds


@pytest.mark.parametrize(
    ("changed", "line", "code"),
    [
        ({"since": "soon"}, "--since: should be like 90s, 30m, 1h or 2d, got 'soon'", 2),
        ({"since": "0h"}, "--since: should be like", 2),
        ({"since": "10s"}, "nothing was decided in the last 10s", 1),
        ({"model": "tinny"}, "no decision of model 'tinny' in the last 1h; of: big.1, tiny", 2),
        ({"run": "other"}, "no decisions of a run 'other' are stored on this machine", 1),
        ({"store": "here.sqlite"}, "--store: should be sqlite:///FILE or postgresql+psycopg://", 2),
        ({"store": "sqlite:////no/such/file"}, "--store: /no/such/file: no such file", 2),
    ],
)
def test_what_can_t_be_shown_is_said_in_one_line(kept: Path, changed: dict[str, str], line: str, code: int) -> None:
    with pytest.raises(Failure) as refused:
        stored(asked(**changed), now_s=NOW_S)
    assert str(refused.value).startswith(line)
    assert len(str(refused.value).splitlines()) == 1
    assert refused.value.exit_code == code
    assert not Path("/no").exists()


def test_a_page_that_can_t_be_written_is_the_user_s_mistake(kept: Path) -> None:
    with pytest.raises(Failure, match=r"--plot: .*no such file or directory") as refused:
        command(asked(), as_json=True, plot=str(kept / "no" / "page.html"))
    assert refused.value.exit_code == 2
