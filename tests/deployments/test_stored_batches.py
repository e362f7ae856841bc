"""Is a batch run by one router at a time, and is what it writes kept only while it is its own?"""

from concurrent.futures import ThreadPoolExecutor
from time import time
from typing import Any

import pytest

from deployments.batches import stored_batches
from deployments.batches.batch import Batch, Outcome, Progress
from deployments.batches.state import Status
from deployments.batches.stored_batches import LeaseLost, TooManyOpen
from deployments.files import stored_files
from deployments.files.stored_files import File
from deployments.store import Store


def batch(name: str, tenant: str = "alpha", **what: Any) -> Batch:
    told: dict[str, Any] = {"key": "k", "models": ("a", "b"), "endpoint": "/v1/completions", "input_file": "file-1"}
    told |= {"about": {"a": "b"}, "files_kept_s": None, "created_s": 1.0, "expires_s": 1e12}
    return Batch(id=name, tenant=tenant, **(told | what))


def add(store: Store, one: Batch) -> None:
    stored_batches.add(store, one, most_open=100)


def end(store: Store, name: str, ended_s: float) -> None:
    """As if its file had been no batch."""
    stored_batches.claim(store, "one", 60.0)
    stored_batches.end(store, name, "one", Status.FAILED, {"ended_s": ended_s}, (None, None))


def test_what_was_added_is_there_for_its_tenant_alone(opened: Store) -> None:
    told = [batch(f"batch_{number}", created_s=float(number)) for number in range(3)]
    for one in told:
        add(opened, one)
    assert stored_batches.one(opened, "alpha", "batch_1") == told[1]
    assert stored_batches.one(opened, "beta", "batch_1") is None
    assert stored_batches.listed(opened, "alpha", limit=2, after=None) == [told[2], told[1]]
    assert stored_batches.listed(opened, "alpha", limit=2, after="batch_1") == [told[0]]
    assert stored_batches.listed(opened, "beta", limit=2, after="batch_1") is None


def test_a_tenant_has_no_more_open_than_it_may_however_many_ask_at_once(url: str, opened: Store) -> None:
    def asks(worker: int) -> int:
        mine, taken = Store(url), 0
        for number in range(10):
            try:
                stored_batches.add(mine, batch(f"batch_{worker}_{number}"), most_open=23)
                taken += 1
            except TooManyOpen:
                pass
        mine.close()
        return taken

    with ThreadPoolExecutor(4) as threads:
        taken = sum(threads.map(asks, range(4)))
    there = stored_batches.listed(opened, "alpha", limit=100, after=None) or []
    assert taken == len(there) == 23
    with pytest.raises(TooManyOpen):
        stored_batches.add(opened, batch("batch_late"), most_open=23)
    first = stored_batches.claim(opened, "one", 60.0)
    assert first is not None
    stored_batches.end(opened, first.id, "one", Status.FAILED, {"ended_s": 2.0}, (None, None))
    stored_batches.add(opened, batch("batch_late"), most_open=23)
    stored_batches.add(opened, batch("batch_of_another", "beta"), most_open=1)


def test_each_batch_is_claimed_once_however_many_want_it(url: str, opened: Store) -> None:
    for number in range(12):
        add(opened, batch(f"batch_{number}"))

    def claims(owner: str) -> list[str]:
        mine, got = Store(url), []
        while (one := stored_batches.claim(mine, owner, 60.0)) is not None:
            got.append(one.id)
        mine.close()
        return got

    with ThreadPoolExecutor(4) as threads:
        got = list(threads.map(claims, "abcd"))
    assert sorted(name for names in got for name in names) == sorted(f"batch_{number}" for number in range(12))


def test_the_tenant_with_the_fewest_is_next(opened: Store) -> None:
    for number in range(3):
        add(opened, batch(f"batch_a{number}", created_s=float(number)))
    add(opened, batch("batch_b", "beta", created_s=9.0))
    claimed = [stored_batches.claim(opened, "one", 60.0) for _ in range(3)]
    assert [one and one.id for one in claimed] == ["batch_a0", "batch_b", "batch_a1"]
    assert stored_batches.claim(opened, "one", 60.0, full=["alpha"]) is None


def test_who_lost_its_lease_writes_nothing_more(opened: Store) -> None:
    add(opened, batch("batch_1"))
    assert stored_batches.claim(opened, "one", -1.0) is not None  # it has ended already
    assert stored_batches.keep(opened, "batch_1", "one", -1.0, [], Progress()) is Status.VALIDATING
    assert stored_batches.claim(opened, "two", 60.0) is not None
    lost = [
        lambda: stored_batches.keep(opened, "batch_1", "one", 60.0, [Outcome(1, True, b"x")], Progress(total=1)),
        lambda: stored_batches.move(opened, "batch_1", "one", Status.IN_PROGRESS, {}),
        lambda: stored_batches.end(opened, "batch_1", "one", Status.FAILED, {}, (None, None)),
    ]
    for write in lost:
        with pytest.raises(LeaseLost):
            write()
    stored_batches.release(opened, "batch_1", "one")
    assert stored_batches.claim(opened, "three", 60.0) is None
    assert stored_batches.done(opened, "batch_1") == []


def test_the_first_outcome_of_a_line_stays(opened: Store) -> None:
    add(opened, batch("batch_1"))
    stored_batches.claim(opened, "one", 60.0)
    for body in (b"first", b"second"):
        outcomes = [Outcome(line, True, body) for line in range(1, 1202)]
        stored_batches.keep(opened, "batch_1", "one", 60.0, outcomes, Progress(total=1201, completed=1201))
    assert [(one.line, one.body) for one in stored_batches.outcomes(opened, "batch_1")] == [
        (line, b"first") for line in range(1, 1202)
    ]


def test_a_batch_that_was_cancelled_goes_no_other_way(opened: Store) -> None:
    add(opened, batch("batch_1"))
    stored_batches.claim(opened, "one", 60.0)
    stored_batches.move(opened, "batch_1", "one", Status.IN_PROGRESS, {"in_progress_s": 2.0})
    assert stored_batches.cancel(opened, "beta", "batch_1", 3.0) is None
    cancelled = stored_batches.cancel(opened, "alpha", "batch_1", 3.0)
    assert cancelled is not None
    assert (cancelled.status, cancelled.cancelling_s) == (Status.CANCELLING, 3.0)
    assert stored_batches.move(opened, "batch_1", "one", Status.FINALIZING, {}) is Status.CANCELLING
    again = stored_batches.cancel(opened, "alpha", "batch_1", 4.0)
    assert again is not None
    assert again.cancelling_s == 3.0


def test_an_end_has_its_files_or_is_none(opened: Store) -> None:
    add(opened, batch("batch_1"))
    stored_batches.claim(opened, "one", 60.0)
    stored_batches.keep(opened, "batch_1", "one", 60.0, [Outcome(1, True, b"x")], Progress(total=1, completed=1))
    stored_files.coming(opened, "file-2", "alpha", time())
    assert stored_files.one(opened, "alpha", "file-2", time()) is None
    made = {"filename": "a", "purpose": "batch_output", "size_bytes": 1, "created_s": 1.0}
    file = File(id="file-2", tenant="alpha", **made)  # type: ignore[arg-type]
    with pytest.raises(LeaseLost):
        stored_batches.end(opened, "batch_1", "one", Status.COMPLETED, {}, (file, None))
    assert stored_files.one(opened, "alpha", "file-2", time()) is None
    stored_batches.move(opened, "batch_1", "one", Status.IN_PROGRESS, {})
    stored_batches.move(opened, "batch_1", "one", Status.FINALIZING, {})
    assert not stored_batches.forget_lines(opened)
    stored_batches.end(opened, "batch_1", "one", Status.COMPLETED, {"ended_s": 5.0}, (file, None))
    ended = stored_batches.one(opened, "alpha", "batch_1")
    assert ended is not None
    assert (ended.status, ended.output_file, ended.ended_s) == (Status.COMPLETED, "file-2", 5.0)
    assert stored_files.one(opened, "alpha", "file-2", time()) == file
    assert stored_batches.claim(opened, "two", 60.0) is None
    assert stored_batches.forget_lines(opened)
    assert not stored_batches.forget_lines(opened)
    assert stored_batches.done(opened, "batch_1") == []


def test_what_ended_long_ago_is_forgotten_and_what_did_not_end_never(opened: Store) -> None:
    for name, ended_s in (("batch_old", 10.0), ("batch_new", 30.0)):
        add(opened, batch(name))
        end(opened, name, ended_s)
    add(opened, batch("batch_open"))
    stored_batches.claim(opened, "one", 60.0)
    stored_batches.keep(opened, "batch_open", "one", 60.0, [Outcome(1, True, b"x")], Progress(total=1, completed=1))

    def names() -> set[str]:
        return {one.id for one in stored_batches.listed(opened, "alpha", limit=9, after=None) or ()}

    stored_batches.forget_ended(opened, 20.0)
    assert names() == {"batch_new", "batch_open"}
    stored_batches.end(opened, "batch_open", "one", Status.FAILED, {"ended_s": 31.0}, (None, None))
    stored_batches.forget_ended(opened, 40.0)
    assert names() == {"batch_open"}, "its lines would be nobody's"
    assert stored_batches.forget_lines(opened)
    stored_batches.forget_ended(opened, 40.0)
    assert names() == set()
