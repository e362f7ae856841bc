"""Is what was stored there again: after a new start, from several writers, within its bounds, on either database?"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from deployments import store, tables
from deployments.fleet import sqlite_url
from deployments.store import Store, StoreError
from tests.deployments.decision_entries import entry
from tests.deployments.postgres_server import connected

DAY_S = 24 * 3600.0


def test_what_was_stored_is_there_after_a_new_start(url: str, opened: Store) -> None:
    told = [entry(10.0, 2), entry(11.0, 1, advice=True), entry(11.0, 3, model="big")]
    opened.add_decisions(told)
    again = Store(url)
    assert again.decisions(since_s=0.0) == [told[0], told[2], told[1]]
    assert again.decisions(since_s=11.0, deployment="engine-tiny") == [told[1]]
    assert again.decisions(since_s=12.0) == []
    again.close()


def test_what_several_routers_tell_is_stored_once(url: str) -> None:
    told = [entry(float(second)) for second in range(50)]

    def one_router(begin: int) -> None:
        mine = Store(url)  # all of them find an empty database, and one makes the tables
        for first in range(begin, 50, 5):
            mine.add_decisions(told[first : first + 5])
        mine.add_decisions(told)
        mine.close()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(one_router, range(4)))
    reader = Store(url)
    assert reader.decisions(since_s=0.0) == told
    reader.close()


def test_old_decisions_are_dropped_by_age_and_by_count(opened: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    opened.add_decisions([entry(0.0), entry(10 * DAY_S)])
    opened.add_decisions([entry(15 * DAY_S)])
    assert [kept["at_s"] for kept in opened.decisions(since_s=0.0)] == [10 * DAY_S, 15 * DAY_S]
    monkeypatch.setattr(store, "KEPT_ROWS", 3)
    opened.add_decisions([entry(15 * DAY_S + second) for second in range(1, 6)])
    assert [kept["at_s"] for kept in opened.decisions(since_s=0.0)] == [15 * DAY_S + second for second in (3, 4, 5)]


def test_the_migrations_make_the_tables_that_the_code_speaks_of(url: str, opened: Store) -> None:
    opened.add_decisions([])
    with connected(url) as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.TABLES) == []


def test_any_numbers_come_back_as_they_were(tmp_path: Path) -> None:
    here = Store(sqlite_url(tmp_path / "store.sqlite"))
    times = count()

    @given(
        st.recursive(
            st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=8,
        )
    )
    def comes_back(numbers: object) -> None:
        told = entry(float(next(times)))
        told["numbers"] = {"any": numbers}
        here.add_decisions([told])
        assert here.decisions(since_s=told["at_s"]) == [told]

    comes_back()
    here.close()


def test_a_store_that_can_t_be_had_is_named_without_its_password(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database at all, but a text that is long enough to be read as one: " * 20)
    with pytest.raises(StoreError, match="text can't be opened: file is not a database"):
        Store(sqlite_url(tmp_path / "text"))
    with pytest.raises(StoreError, match="can't be opened") as refused:
        Store("postgresql+psycopg://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(refused.value)


def test_a_store_of_a_later_version_is_refused(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "store.sqlite")
    Store(url).close()
    with connected(url) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.commit()
    with pytest.raises(StoreError, match="9999"):
        Store(url)


def test_the_store_loads_without_ray() -> None:
    code = "import sys, deployments.store; print('ray' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"
