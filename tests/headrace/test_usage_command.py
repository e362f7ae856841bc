"""`headrace usage`: who used what, added up as asked, with what killed routers left; what is wrong in one line."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from deployments import stored_usage
from deployments.fleet import sqlite_url
from deployments.store import Store
from deployments.store_paths import store_path
from deployments.usage_journal import UsageJournal
from deployments.usage_keeper import FOLDER
from deployments.usage_line import Line
from headrace.failure import Failure
from headrace.folders import store_file
from headrace.usage import command

NOW_S = time.time()
HOUR_S = 3600.0


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UsageJournal:
    """Of the default run's router, which has written some of it into the store."""
    monkeypatch.setenv("HEADRACE_STATE", str(tmp_path / "state"))
    url = sqlite_url(store_file("default"))
    journal, store = UsageJournal(store_path(url, FOLDER), print), Store(url)
    journal.add(line("alpha", "k1", NOW_S - 50 * HOUR_S))
    journal.add(line("alpha", "k2"))
    stored_usage.absorb(store, journal.path)
    journal.add(line("beta", "k3", gpu_s=0.25))
    store.close()
    return journal


def line(tenant: str, key: str, at_s: float = NOW_S, **amounts: float) -> Line:
    usual = {"requests": 1, "prompt_tokens": 1000, "cached_tokens": 100, "output_tokens": 10, "gpu_s": 2.5}
    return Line(at_s=at_s, tenant=tenant, key=key, model="tiny", variant="tiny", **usual | amounts)  # type: ignore[arg-type]


def told(capsys: pytest.CaptureFixture[str], **asked: Any) -> list[dict[str, Any]]:
    usual: dict[str, Any] = {"since": "30d", "by": "tenant,model", "run": "default", "store": None}
    command(**usual | asked, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown["format"] == 1
    return shown["usage"]


def test_usage_is_added_up_by_what_was_asked(journal: UsageJournal, capsys: pytest.CaptureFixture[str]) -> None:
    journal.close()
    assert told(capsys) == [
        {"tenant": "alpha", "model": "tiny", "requests": 2, "prompt_tokens": 2000, "cached_tokens": 200,
         "output_tokens": 20, "gpu_s": 5.0},
        {"tenant": "beta", "model": "tiny", "requests": 1, "prompt_tokens": 1000, "cached_tokens": 100,
         "output_tokens": 10, "gpu_s": 0.25},
    ]  # fmt: skip
    assert [row["key"] for row in told(capsys, by="key", since="12h")] == ["k2", "k3"]
    assert len(told(capsys, by="day,variant")) == 2
    assert [row["requests"] for row in told(capsys, by="model")] == [3]


def test_what_a_live_router_has_not_written_yet_is_its_to_write(
    journal: UsageJournal, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [row["tenant"] for row in told(capsys)] == ["alpha"]
    journal.close()
    assert [row["tenant"] for row in told(capsys)] == ["alpha", "beta"]
    assert [row["tenant"] for row in told(capsys)] == ["alpha", "beta"]


def test_the_table_has_a_line_for_each(journal: UsageJournal, capsys: pytest.CaptureFixture[str]) -> None:
    journal.close()
    command(since="30d", by="tenant", as_json=False, run="default", store=None)
    lines = [one.split() for one in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["tenant", "requests", "prompt", "tokens", "cached", "tokens", "output", "tokens", "gpu-s"]
    assert lines[1:] == [["alpha", "2", "2,000", "200", "20", "5.0"], ["beta", "1", "1,000", "100", "10", "0.2"]]


@pytest.mark.parametrize(
    ("asked", "said", "code"),
    [
        ({"by": "tenant,colour"}, "--by: should be some of tenant, key, model, variant, day, hour, got 'colour'", 2),
        ({"since": "soon"}, "--since: should be like 90s, 30m, 1h or 2d, got 'soon'", 2),
        ({"run": "other"}, "nothing is stored of a run 'other' on this machine", 1),
    ],
)
def test_what_can_t_be_shown_is_said_in_one_line(
    journal: UsageJournal, asked: dict[str, str], said: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Failure) as refused:
        told(capsys, **asked)
    assert str(refused.value).startswith(said)
    assert (len(str(refused.value).splitlines()), refused.value.exit_code) == (1, code)
    journal.close()
