"""Is it told what the policy decides: each change and one decision a minute, and never at the policy's cost?"""

import json
import logging
from itertools import pairwise

import pytest

from autoscaling import JOURNAL, START, Cursor, Entry
from tests.autoscaling.asked_by_serve import ENGINE, OTHER, Application


def read(cursor: Cursor = START) -> tuple[Cursor, list[Entry]]:
    """As a router does, which knows the journal's name only."""
    return logging.getLogger(JOURNAL).handlers[0].since(cursor)  # type: ignore[attr-defined]


def busy() -> Application:
    """One engine with more than it can bear."""
    application = Application(ENGINE)
    application.targets[ENGINE] = 1
    application.queue(11.0)
    application.run(ENGINE, running=10.0)
    return application


def test_a_change_is_told_with_its_numbers_and_what_one_fewer_would_have_meant():
    application = busy()
    application.tick()
    _, (entry,) = read()
    assert (entry["deployment"], entry["at_s"]) == ("engine-tiny", application.now_s)
    assert (entry["wanted"], entry["running"], entry["starting"]) == (3, 1, 0)
    assert entry["reason"].startswith("1 -> 3 replicas; 10 requests in engines, 11 queued")
    assert entry["numbers"]["demand"]["requests"] > 10
    assert entry["one_fewer"] is not None
    assert entry["one_fewer"]["replicas"] == 2
    assert not entry["advice"]
    assert json.loads(json.dumps(entry, allow_nan=False)) == entry


def test_what_stays_is_told_once_a_minute_and_what_moves_at_once():
    application = busy()
    for _ in range(150):
        application.run(ENGINE, running=5.0)
        application.queue(0.0)
        application.tick(1.0)
    application.targets[ENGINE] = 4
    application.tick(1.0)
    _, entries = read()
    times = [entry["at_s"] for entry in entries]
    moved = [(entry["wanted"], entry["running"]) for entry in entries]
    assert len(entries) < 8
    assert moved[-1][1] == 4
    assert max(after - before for before, after in pairwise(times)) == 60.0


def test_a_reader_goes_on_where_it_was_and_begins_anew_with_a_new_policy():
    application = Application(ENGINE, OTHER)
    application.tick()
    cursor, entries = read()
    assert [entry["deployment"] for entry in entries] == ["engine-tiny", "engine-big.1"]
    assert read(cursor) == (cursor, [])
    application.queue(5.0)
    application.tick(1.0)
    cursor, (entry,) = read(cursor)
    assert entry["wanted"] == 1
    other = Application(OTHER)
    other.now_s += 50
    other.tick()
    assert [entry["deployment"] for entry in read(cursor)[1]] == ["engine-big.1"]


def test_what_nobody_reads_is_bounded_and_the_newest_remains():
    application = Application(ENGINE)
    for number in range(1_200):
        application.targets[ENGINE] = 1 + number % 2
        application.tick(1.0)
    _, entries = read()
    assert len(entries) == 1_000
    assert entries[-1]["at_s"] == application.now_s


def test_a_journal_that_fails_changes_no_decision(caplog):
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("no")

    application = busy()
    logging.getLogger(JOURNAL).handlers = [Broken()]
    for _ in range(3):
        assert application.tick(1.0)["engine-tiny"] == 3
    assert sum("decisions are not told: OSError: no" in record.message for record in caplog.records) == 1


def test_advice_is_only_told_while_serve_s_own_law_acts():
    application = Application(ENGINE, advise=True, target_ongoing_requests=10)
    application.targets[ENGINE] = 1
    application.queue(11.0)
    application.run(ENGINE, running=10.0)
    assert application.tick()["engine-tiny"] == 3, "21 requests, 10 for each"
    application.queue(0.0)
    application.run(ENGINE, running=1.0)
    assert application.tick(1.0)["engine-tiny"] == 1, "3 requests: Serve's law holds nothing"
    _, entries = read()
    assert all(entry["advice"] for entry in entries)
    assert entries[-1]["wanted"] == 3, "ours keeps what was wanted a moment ago"


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf")])
def test_numbers_that_no_database_takes_are_told_as_unknown(nonsense: float):
    application = Application(ENGINE)
    application.queue(5.0)
    (numbers,) = application.reports.values()
    numbers |= {"short_tokens.tiny": nonsense, "long_tokens.tiny": nonsense}
    application.tick()
    _, (entry,) = read()
    assert entry["numbers"]["demand"]["prompt_tokens_per_s"] is None
    assert json.loads(json.dumps(entry, allow_nan=False)) == entry


@pytest.mark.parametrize(("delay_s", "replicas"), [(0, 5), (3_600, 1)])
def test_serve_s_own_delays_hold_while_ours_only_advises_but_for_the_first_replica(delay_s: float, replicas: int):
    application = Application(ENGINE, advise=True, target_ongoing_requests=2, upscale_delay_s=delay_s)
    application.queue(5.0)
    assert application.tick()["engine-tiny"] == 1
    application.run(ENGINE, running=5.0)
    assert application.tick(1.0)["engine-tiny"] == replicas, "10 requests, 2 for each"
