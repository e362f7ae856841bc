"""How do lines of journals become what each tenant, key, model and variant used in each hour, each line once?

The store knows up to which byte each journal was taken over, and learns that in the transaction that adds it up:
whoever is killed between any two steps, the next one goes on where the store is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, delete, func, select

from deployments.store import INSERTS, Store
from deployments.tables import USAGE, USAGE_JOURNALS
from deployments.usage_line import Line, decode

HOUR_S = 3600
AT_ONCE_BYTES = 1 << 22
"""Taken over in one transaction."""
KEYS = ("tenant", "key", "model", "variant")
AMOUNTS = ("requests", "prompt_tokens", "cached_tokens", "output_tokens", "gpu_s")


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Of an hour."""

    hour_s: int
    """Its begin, since 1970."""
    tenant: str
    key: str
    model: str
    variant: str
    requests: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    gpu_s: float


def absorb(store: Store, journal: Path) -> None:
    """Adds what is new in a journal. Raises StoreError, OSError."""
    while _absorb_some(store, journal):
        pass


def forget(store: Store, journal: Path) -> None:
    """The journal is gone for good. Raises StoreError."""
    with store.writing() as connection:
        connection.execute(delete(USAGE_JOURNALS).where(USAGE_JOURNALS.c.name == journal.name))


def since(store: Store, since_s: float) -> list[Usage]:
    """Of each hour that ended after that moment, oldest first. Raises StoreError."""
    asked = (
        select(USAGE)
        .where(USAGE.c.hour_s > since_s - HOUR_S)
        .order_by(USAGE.c.hour_s, *(USAGE.c[name] for name in KEYS))
    )
    with store.reading() as connection:
        return [Usage(**row) for row in connection.execute(asked).mappings()]


def _absorb_some(store: Store, journal: Path) -> bool:
    """Whether there is more."""
    with store.writing() as connection:
        taken = _taken(connection, journal.name)
        with journal.open("rb") as file:
            file.seek(taken)
            lines = file.read(AT_ONCE_BYTES)
        whole, _, _ = lines.rpartition(b"\n")
        if not whole:
            return False
        _add(connection, _hours(decode(line) for line in whole.split(b"\n")))
        _take(connection, journal.name, taken + len(whole) + 1)
        return len(lines) == AT_ONCE_BYTES


def _taken(connection: Connection, name: str) -> int:
    """Bytes of it that were taken over; nobody else takes any until the end of the transaction."""
    _take(connection, name, 0)
    asked = select(USAGE_JOURNALS.c.taken_bytes).where(USAGE_JOURNALS.c.name == name)
    return connection.execute(asked).scalar_one()


def _take(connection: Connection, name: str, taken_bytes: int) -> None:
    asked = INSERTS[connection.dialect.name](USAGE_JOURNALS).values(name=name, taken_bytes=taken_bytes)
    # Writes the row in any case: that locks it.
    grown = _greatest(connection)(USAGE_JOURNALS.c.taken_bytes, asked.excluded.taken_bytes)
    connection.execute(asked.on_conflict_do_update(index_elements=["name"], set_={"taken_bytes": grown}))


def _greatest(connection: Connection):
    return func.max if connection.dialect.name == "sqlite" else func.greatest


def _hours(lines: Iterable[Line]) -> Iterator[dict[str, object]]:
    sums: dict[tuple[object, ...], list[float]] = {}
    for line in lines:
        key = (int(line.at_s) // HOUR_S * HOUR_S, *(getattr(line, name) for name in KEYS))
        amounts = sums.setdefault(key, [0] * len(AMOUNTS))
        for place, name in enumerate(AMOUNTS):
            amounts[place] += getattr(line, name)
    for key, amounts in sums.items():
        yield dict(zip(("hour_s", *KEYS, *AMOUNTS), (*key, *amounts), strict=True))


def _add(connection: Connection, hours: Iterable[dict[str, object]]) -> None:
    insert = INSERTS[connection.dialect.name](USAGE)
    summed = {name: USAGE.c[name] + insert.excluded[name] for name in AMOUNTS}
    # In one order everywhere, or two routers could wait for each other's rows.
    rows = sorted(hours, key=lambda hour: tuple(map(str, hour.values())))
    connection.execute(insert.on_conflict_do_update(index_elements=["hour_s", *KEYS], set_=summed), rows)
