"""Where is kept what must outlive the processes of a fleet, and how is it written and read?

SQLite or PostgreSQL through SQLAlchemy. Opening a store brings its tables up to date, one opener at a time. What is
written of keys and usage is in files of their own. Blocking: on an event loop, call from a thread.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from filelock import FileLock
from sqlalchemy import Connection, Engine, create_engine, delete, func, make_url, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from autoscaling import Entry
from deployments.tables import DECISIONS

MIGRATIONS = Path(__file__).parent / "migrations"
PATIENCE_S = 10.0
"""With others who write to the same file, or who don't answer."""
KEPT_S = 14 * 24 * 3600.0
KEPT_ROWS = 50_000
"""Decisions that are older than the newest by more, or beyond so many, are dropped: some 50 MB at most."""

INSERTS = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class StoreError(RuntimeError):
    """The store can't be opened, read or written; the text says which, without its password."""


class Store:
    """One store, up to date."""

    def __init__(self, url: str) -> None:
        """Makes what is missing: file, tables. Raises StoreError."""
        self._engine = _engine(url)
        with self._failing("opened"), _alone(self._engine) as connection:
            _migrate(connection)

    def add_decisions(self, entries: Sequence[Entry]) -> None:
        """Keeps those that are not there yet, and drops the oldest beyond the bounds. Raises StoreError."""
        if not entries:
            return
        insert = INSERTS[self._engine.dialect.name](DECISIONS).on_conflict_do_nothing()
        with self.writing() as connection:
            connection.execute(insert, [dict(entry) for entry in entries])
            _trim(connection)

    def decisions(self, *, since_s: float, deployment: str | None = None) -> list[Entry]:
        """What was decided since then, oldest first. Raises StoreError."""
        asked = select(DECISIONS).where(DECISIONS.c.at_s >= since_s)
        if deployment is not None:
            asked = asked.where(DECISIONS.c.deployment == deployment)
        with self.reading() as connection:
            rows = connection.execute(asked.order_by(DECISIONS.c.at_s, DECISIONS.c.deployment)).mappings()
            return [cast(Entry, dict(row)) for row in rows]

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """For what only reads. Raises StoreError."""
        with self._failing("read"), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction, which holds whole or not at all. Raises StoreError."""
        with self._failing("written"), self._engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Lets go of its connections."""
        self._engine.dispose()

    @contextmanager
    def _failing(self, done: str) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, CommandError, OSError) as error:
            said = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            shown = self._engine.url.render_as_string(hide_password=True)
            raise StoreError(f"{shown} can't be {done}: {said}") from error


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    patience: dict[str, Any] = {"timeout": PATIENCE_S} if parsed.get_backend_name() == "sqlite" else {}
    if not patience:
        patience = {"connect_timeout": int(PATIENCE_S)}
    try:
        return create_engine(parsed, connect_args=patience, pool_pre_ping=True)
    except ImportError as error:
        raise StoreError(f"PostgreSQL needs its driver, psycopg (the extra `postgres`): {error}") from error


def take_turns(connection: Connection, what: str) -> None:
    """Returns when no other transaction that took its turn at the same is open: what this one reads from now on is as
    it will be when this one has ended. In SQLite whoever has written something is alone anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:what))"), {"what": what})


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """A transaction while which nobody else migrates."""
    file = engine.url.database
    if engine.dialect.name == "sqlite" and file is not None:
        Path(file).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(f"{file}.lock", timeout=PATIENCE_S), engine.begin() as connection:
            yield connection
        return
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('headrace'))"))
        yield connection


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _trim(connection: Connection) -> None:
    newest = select(func.max(DECISIONS.c.at_s)).scalar_subquery()
    connection.execute(delete(DECISIONS).where(DECISIONS.c.at_s < newest - KEPT_S))
    beyond = select(DECISIONS.c.at_s).order_by(DECISIONS.c.at_s.desc()).offset(KEPT_ROWS).limit(1).scalar_subquery()
    connection.execute(delete(DECISIONS).where(DECISIONS.c.at_s <= beyond))
