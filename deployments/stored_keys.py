"""Which keys were made, and which of them work no longer, by the store?"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

import routing
from deployments.api_key import ApiKey
from deployments.store import Store
from deployments.tables import KEYS, KEYS_VERSION


class NoSuchKey(LookupError):
    """No key of that id; or none that could be changed so, and the text says why."""


def add(store: Store, key: ApiKey) -> None:
    """Raises StoreError."""
    with store.writing() as connection:
        _add(connection, key)


def every(store: Store) -> list[ApiKey]:
    """Oldest first, those that work no longer too. Raises StoreError."""
    with store.reading() as connection:
        return [_key(row) for row in connection.execute(select(KEYS).order_by(KEYS.c.created_s)).mappings()]


def version(store: Store) -> int:
    """Grows with each change; 0: there never was a key. Raises StoreError."""
    with store.reading() as connection:
        return connection.execute(select(func.max(KEYS_VERSION.c.number))).scalar_one()


def revoke(store: Store, name: str, now_s: float) -> ApiKey:
    """Ends a key now; what it is returned as is what was kept before. Raises NoSuchKey, StoreError."""
    with store.writing() as connection:
        found = _one(connection, name)
        if found.revoked_s is None:
            _change(connection, name, revoked_s=now_s)
        return found


def replace_key(store: Store, name: str, successor: ApiKey, ends_s: float) -> ApiKey:
    """Adds a successor; the old key ends then, or earlier if it was to expire. Raises NoSuchKey, StoreError."""
    with store.writing() as connection:
        found = _one(connection, name)
        if (state := found.state(successor.created_s)) != "works":
            raise NoSuchKey(f"{name} works no longer ({state}): create a new one")
        kept = replace(found, expires_s=min(ends_s, found.expires_s or ends_s))
        _change(connection, name, expires_s=kept.expires_s)
        _add(connection, successor)
        return kept


def one(store: Store, name: str) -> ApiKey:
    """Raises NoSuchKey, StoreError."""
    with store.reading() as connection:
        return _one(connection, name)


def _one(connection: Connection, name: str) -> ApiKey:
    row = connection.execute(select(KEYS).where(KEYS.c.id == name)).mappings().one_or_none()
    if row is None:
        raise NoSuchKey(f"no key {name!r} is in this store")
    return _key(row)


def _key(row: Mapping[Any, Any]) -> ApiKey:
    models, limits = row["models"], row["limits"]
    told = {
        "models": None if models is None else tuple(models),
        "limits": tuple(_limit(**limit) for limit in limits or ()),
    }
    return ApiKey(**{**row, **told})


def _limit(unit: str, amount: float, period: str | None) -> routing.Limit:
    return routing.Limit(unit=unit, amount=amount, period=None if period is None else routing.Period(period))


def _add(connection: Connection, key: ApiKey) -> None:
    limits = [asdict(limit) for limit in key.limits] or None
    connection.execute(insert(KEYS), asdict(key) | {"limits": limits})
    _changed(connection)


def _change(connection: Connection, name: str, **values: float | None) -> None:
    connection.execute(update(KEYS).where(KEYS.c.id == name).values(**values))
    _changed(connection)


def _changed(connection: Connection) -> None:
    connection.execute(update(KEYS_VERSION).values(number=KEYS_VERSION.c.number + 1))
