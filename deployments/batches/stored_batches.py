"""Which batches are there, who runs each, and what came of their lines, by the store?

A batch is run by one router at a time: its owner, for as long as it renews its lease. Times of leases are the store's
own: PostgreSQL's clock, and for a file that of the one machine that has it. A clock that jumps makes a lease too short
or too long, no more: whatever a router writes of a batch it writes in a transaction that finds it to be the owner.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from time import time
from typing import Any

from sqlalchemy import Connection, delete, exists, func, insert, select, update

from deployments.batches.batch import Batch, Outcome, Progress
from deployments.batches.state import OPEN, Status, before
from deployments.files.stored_files import File, keep_within
from deployments.store import INSERTS, Store, take_turns
from deployments.tables import BATCH_LINES, BATCHES

AT_ONCE_LINES = 500
"""Read or deleted at once."""
PROGRESS = tuple(field.name for field in fields(Progress))


class LeaseLost(RuntimeError):
    """Another router runs this batch now, or may."""


class TooManyOpen(RuntimeError):
    """A tenant would have more batches that have not ended than it may."""


def add(store: Store, batch: Batch, most_open: int) -> None:
    """Raises TooManyOpen, StoreError."""
    theirs = select(func.count()).where(BATCHES.c.tenant == batch.tenant, BATCHES.c.status.in_(OPEN))
    with store.writing() as connection:
        take_turns(connection, f"batches of {batch.tenant}")
        connection.execute(insert(BATCHES), _row(batch) | {"owner": "", "lease_s": 0.0})
        if connection.execute(theirs).scalar_one() > most_open:
            raise TooManyOpen


def one(store: Store, tenant: str, name: str) -> Batch | None:
    """Raises StoreError."""
    with store.reading() as connection:
        return _one(connection, tenant, name)


def listed(store: Store, tenant: str, *, limit: int, after: str | None) -> list[Batch] | None:
    """Newest first, those after a batch; None when there is no such batch. Raises StoreError."""
    place = (BATCHES.c.created_s, BATCHES.c.id)
    asked = select(BATCHES).where(BATCHES.c.tenant == tenant).order_by(*(column.desc() for column in place))
    with store.reading() as connection:
        if after is not None:
            if (last := _one(connection, tenant, after)) is None:
                return None
            same = (BATCHES.c.created_s == last.created_s) & (BATCHES.c.id < last.id)
            asked = asked.where((BATCHES.c.created_s < last.created_s) | same)
        return [_batch(row) for row in connection.execute(asked.limit(limit)).mappings()]


def cancel(store: Store, tenant: str, name: str, now_s: float) -> Batch | None:
    """Asks its owner to stop, if it may still be cancelled; how it is then. Raises StoreError."""
    mine = (BATCHES.c.id == name, BATCHES.c.tenant == tenant)
    asked = update(BATCHES).where(*mine, BATCHES.c.status.in_(before(Status.CANCELLING)))
    with store.writing() as connection:
        connection.execute(asked.values(status=Status.CANCELLING, cancelling_s=now_s))
        return _one(connection, tenant, name)


def claim(store: Store, owner: str, lease_s: float, full: Collection[str] = ()) -> Batch | None:
    """A batch that nobody runs: of the tenant that has fewest running, the oldest. None of the tenants in `full`.

    Raises StoreError.
    """
    with store.reading() as connection:
        waiting = connection.execute(select(BATCHES.c.id).where(*_free(BATCHES, _now_s(connection), full)).limit(1))
        if waiting.first() is None:  # most of the time, and nothing is locked
            return None
    with store.writing() as connection:
        now_s = _now_s(connection)
        found, other = BATCHES.alias("found"), BATCHES.alias("other")
        theirs = (other.c.tenant == found.c.tenant, other.c.status.in_(OPEN), other.c.lease_s > now_s)
        running = select(func.count()).select_from(other).where(*theirs).correlate(found).scalar_subquery()
        first = select(found.c.id).where(*_free(found, now_s, full))
        first = first.order_by(running, found.c.created_s, found.c.id).limit(1).scalar_subquery()
        # Said again: who waited for another's claim of the same one finds it taken.
        take = update(BATCHES).where(BATCHES.c.id == first, *_free(BATCHES, now_s, full))
        take = take.values(owner=owner, lease_s=now_s + lease_s).returning(*BATCHES.c)
        row = connection.execute(take).mappings().one_or_none()
    return None if row is None else _batch(row)


def keep(
    store: Store, name: str, owner: str, lease_s: float, outcomes: Sequence[Outcome], progress: Progress
) -> Status:
    """Adds outcomes, tells progress and renews the lease; its status now. Raises LeaseLost, StoreError."""
    with store.writing() as connection:
        values = asdict(progress) | {"lease_s": _now_s(connection) + lease_s}
        status = _change(connection, name, owner, values)
        if outcomes:
            once = INSERTS[connection.dialect.name](BATCH_LINES).on_conflict_do_nothing()
            connection.execute(once, [_line(name, outcome) for outcome in outcomes])
        return status


def move(store: Store, name: str, owner: str, status: Status, values: Mapping[str, Any]) -> Status:
    """Goes to a state, if it may from where it is; its status now. Raises LeaseLost, StoreError."""
    with store.writing() as connection:
        return _move(connection, name, owner, status, values)


def end(
    store: Store,
    name: str,
    owner: str,
    status: Status,
    values: Mapping[str, Any],
    files: tuple[File | None, File | None],
) -> None:
    """Ends it with its output file and its error file, in one transaction. Raises LeaseLost, StoreError."""
    names = {"output_file": files[0] and files[0].id, "error_file": files[1] and files[1].id}
    with store.writing() as connection:
        if _move(connection, name, owner, status, names | {"lease_s": 0.0} | dict(values)) is not status:
            raise LeaseLost(f"{name} can't become {status} any more")
        for file in files:
            if file is not None:
                keep_within(connection, file)


def release(store: Store, name: str, owner: str, wait_s: float = 0.0) -> None:
    """Leaves it to any router, after some time. Raises StoreError."""
    with store.writing() as connection:
        mine = update(BATCHES).where(BATCHES.c.id == name, BATCHES.c.owner == owner)
        connection.execute(mine.values(owner="", lease_s=_now_s(connection) + wait_s))


def done(store: Store, name: str) -> list[int]:
    """Lines of which something came. Raises StoreError."""
    with store.reading() as connection:
        return list(connection.execute(select(BATCH_LINES.c.line).where(BATCH_LINES.c.batch == name)).scalars())


def outcomes(store: Store, name: str) -> Iterator[Outcome]:
    """In the order of the input file, a few at a time. Raises StoreError."""
    line = 0
    while True:
        asked = select(BATCH_LINES).where(BATCH_LINES.c.batch == name, BATCH_LINES.c.line > line)
        with store.reading() as connection:
            rows = connection.execute(asked.order_by(BATCH_LINES.c.line).limit(AT_ONCE_LINES)).all()
        yield from (Outcome(row.line, row.answered, row.body) for row in rows)
        if len(rows) < AT_ONCE_LINES:
            return
        line = rows[-1].line


def forget_lines(store: Store) -> bool:
    """Drops some lines of batches that have ended, whose files have them; False: there were none. Raises StoreError."""
    ended = select(BATCHES.c.id).where(BATCHES.c.status.not_in(OPEN))
    asked = select(BATCH_LINES.c.batch, BATCH_LINES.c.line).where(BATCH_LINES.c.batch.in_(ended)).limit(AT_ONCE_LINES)
    with store.reading() as connection:
        rows = connection.execute(asked).all()
    if not rows:
        return False
    name, most = rows[0].batch, max(row.line for row in rows if row.batch == rows[0].batch)
    with store.writing() as connection:
        connection.execute(delete(BATCH_LINES).where(BATCH_LINES.c.batch == name, BATCH_LINES.c.line <= most))
    return True


def forget_ended(store: Store, before_s: float) -> None:
    """Drops batches that ended before that time and have no lines any more. Raises StoreError."""
    lines = exists().where(BATCH_LINES.c.batch == BATCHES.c.id)
    old = delete(BATCHES).where(BATCHES.c.status.not_in(OPEN), BATCHES.c.ended_s < before_s, ~lines)
    with store.writing() as connection:
        connection.execute(old)


def _now_s(connection: Connection) -> float:
    if connection.dialect.name == "sqlite":
        return time()
    return float(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())


def _free(table: Any, now_s: float, full: Collection[str]) -> tuple[Any, ...]:
    return table.c.status.in_(OPEN), table.c.lease_s <= now_s, table.c.tenant.not_in(sorted(full))


def _move(connection: Connection, name: str, owner: str, status: Status, values: Mapping[str, Any]) -> Status:
    mine = (BATCHES.c.id == name, BATCHES.c.owner == owner)
    may = update(BATCHES).where(*mine, BATCHES.c.status.in_(before(status)))
    if connection.execute(may.values(status=status, **values)).rowcount:
        return status
    now = connection.execute(select(BATCHES.c.status).where(*mine)).scalar_one_or_none()
    if now is None:
        raise LeaseLost(name)
    return Status(now)


def _change(connection: Connection, name: str, owner: str, values: Mapping[str, Any]) -> Status:
    mine = update(BATCHES).where(BATCHES.c.id == name, BATCHES.c.owner == owner, BATCHES.c.status.in_(OPEN))
    status = connection.execute(mine.values(**values).returning(BATCHES.c.status)).scalar_one_or_none()
    if status is None:
        raise LeaseLost(name)
    return Status(status)


def _one(connection: Connection, tenant: str, name: str) -> Batch | None:
    asked = select(BATCHES).where(BATCHES.c.id == name, BATCHES.c.tenant == tenant)
    row = connection.execute(asked).mappings().one_or_none()
    return None if row is None else _batch(row)


def _row(batch: Batch) -> dict[str, Any]:
    row = {name: getattr(batch, name) for name in Batch.__slots__ if name != "progress"}
    return row | {"errors": list(batch.errors)} | asdict(batch.progress)


def _batch(row: Mapping[Any, Any]) -> Batch:
    values = {name: row[name] for name in Batch.__slots__ if name != "progress"}
    values["status"], values["errors"] = Status(values["status"]), tuple(values["errors"] or ())
    values["models"] = None if values["models"] is None else tuple(values["models"])
    return Batch(**values, progress=Progress(**{name: row[name] for name in PROGRESS}))


def _line(name: str, outcome: Outcome) -> dict[str, Any]:
    return {"batch": name, **asdict(outcome)}
