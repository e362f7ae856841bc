"""Which files does each tenant have, by the store?

A file comes in three steps: a row, the bytes, and the row again. It goes in three: the row, the bytes, and the row
again. So whoever is killed between two of them leaves nothing behind that nobody knows of.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, delete, exists, func, insert, or_, select, update

from deployments.batches.state import OPEN
from deployments.store import Store, StoreError, take_turns
from deployments.tables import BATCHES, FILES

COMING, KEPT, GONE = "coming", "kept", "gone"
ABANDONED_S = 24 * 3600.0
"""What has not come in so long never will: its router is gone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """One file; times are seconds since 1970."""

    id: str
    tenant: str
    filename: str
    purpose: str
    size_bytes: int
    created_s: float
    expires_s: float | None = None


class StoredTooMuch(RuntimeError):
    """A tenant's files would take more than it may have."""


def coming(store: Store, name: str, tenant: str, now_s: float) -> None:
    """A file is about to come. Raises StoreError."""
    row = File(id=name, tenant=tenant, filename="", purpose="", size_bytes=0, created_s=now_s)
    with store.writing() as connection:
        connection.execute(insert(FILES), asdict(row) | {"state": COMING})


def keep(store: Store, file: File, most_bytes: int) -> None:
    """Its bytes have come. Raises StoredTooMuch, StoreError."""
    with store.writing() as connection:
        take_turns(connection, f"files of {file.tenant}")
        _keep(connection, file)
        if _total_bytes(connection, file.tenant) > most_bytes:
            raise StoredTooMuch


def keep_within(connection: Connection, file: File) -> None:
    """The same, as a part of what a transaction does; however much the tenant has."""
    _keep(connection, file)


def total_bytes(store: Store, tenant: str) -> int:
    """Of all files that a tenant has. Raises StoreError."""
    with store.reading() as connection:
        return _total_bytes(connection, tenant)


def one(store: Store, tenant: str, name: str, now_s: float) -> File | None:
    """Raises StoreError."""
    asked = select(FILES).where(FILES.c.id == name, *_of(tenant, now_s))
    with store.reading() as connection:
        row = connection.execute(asked).mappings().one_or_none()
    return None if row is None else _file(row)


def listed(
    store: Store, tenant: str, now_s: float, *, limit: int, after: str | None, newest_first: bool, purpose: str | None
) -> list[File] | None:
    """Those after a file, in order; None when there is no such file. Raises StoreError."""
    asked = select(FILES).where(*_of(tenant, now_s))
    if purpose is not None:
        asked = asked.where(FILES.c.purpose == purpose)
    place = (FILES.c.created_s, FILES.c.id)
    if after is not None:
        if (last := one(store, tenant, after, now_s)) is None:
            return None
        asked = asked.where(_beyond(place, (last.created_s, last.id), newest_first))
    order = [column.desc() if newest_first else column for column in place]
    with store.reading() as connection:
        return [_file(row) for row in connection.execute(asked.order_by(*order).limit(limit)).mappings()]


def drop(store: Store, tenant: str, name: str, now_s: float) -> bool:
    """From now on nobody finds it; `to_purge` tells when its bytes may go. Whether it was there. Raises StoreError."""
    asked = update(FILES).where(FILES.c.id == name, *_of(tenant, now_s)).values(state=GONE)
    with store.writing() as connection:
        return connection.execute(asked).rowcount > 0


def give_up(store: Store, name: str) -> None:
    """It did not come whole. Raises StoreError."""
    with store.writing() as connection:
        connection.execute(update(FILES).where(FILES.c.id == name, FILES.c.state == COMING).values(state=GONE))


def to_purge(store: Store, now_s: float) -> list[str]:
    """Files whose bytes nobody needs: dropped, expired, or never whole; and no batch reads from them."""
    late = (FILES.c.state == COMING) & (FILES.c.created_s < now_s - ABANDONED_S)
    read = exists().where(BATCHES.c.input_file == FILES.c.id, BATCHES.c.status.in_(OPEN))
    asked = select(FILES.c.id).where(or_(FILES.c.state == GONE, FILES.c.expires_s <= now_s, late), ~read)
    with store.reading() as connection:
        return list(connection.execute(asked).scalars())


def forget(store: Store, name: str) -> None:
    """Its bytes are gone. Raises StoreError."""
    with store.writing() as connection:
        connection.execute(delete(FILES).where(FILES.c.id == name))


def _keep(connection: Connection, file: File) -> None:
    come = update(FILES).where(FILES.c.id == file.id, FILES.c.state == COMING).values(asdict(file) | {"state": KEPT})
    if not connection.execute(come).rowcount:
        raise StoreError(f"{file.id} was given up before it had come")


def _total_bytes(connection: Connection, tenant: str) -> int:
    asked = select(func.coalesce(func.sum(FILES.c.size_bytes), 0)).where(FILES.c.tenant == tenant)
    return connection.execute(asked.where(FILES.c.state == KEPT)).scalar_one()


def _of(tenant: str, now_s: float) -> tuple[Any, ...]:
    return (
        FILES.c.tenant == tenant,
        FILES.c.state == KEPT,
        or_(FILES.c.expires_s.is_(None), FILES.c.expires_s > now_s),
    )


def _beyond(columns: tuple[Any, Any], place: tuple[float, str], newest_first: bool) -> Any:
    first, second = columns
    if newest_first:
        return or_(first < place[0], (first == place[0]) & (second < place[1]))
    return or_(first > place[0], (first == place[0]) & (second > place[1]))


def _file(row: Mapping[Any, Any]) -> File:
    return File(**{name: row[name] for name in File.__slots__})
