"""What is lent of each tenant's budgets, and to which router, by the store?"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table, delete, select

import routing
from deployments.store import INSERTS, Store
from deployments.tables import LEDGER, LOANS

Amounts = Mapping[str, tuple[float, float]]
"""By name of limit, how much and since when, or when that was so."""


def ledger(store: Store, now_s: float) -> routing.Ledger:
    """As what was kept says; of routers what counts no more is forgotten. Raises StoreError."""
    with store.writing() as connection:
        lent, had = (connection.execute(select(table)).mappings().all() for table in (LEDGER, LOANS))
        over = [row for row in had if not routing.counts(routing.Limit.named(row["name"]).period, row["at_s"], now_s)]
        for row in over:
            connection.execute(delete(LOANS).where(*(column == row[column.name] for column in LOANS.primary_key)))
    return routing.Ledger(
        {(row["tenant"], row["name"]): (row["lent"], row["begin_s"]) for row in lent},
        {(row["router"], row["tenant"], row["name"]): (row["had"], row["at_s"]) for row in had if row not in over},
    )


def keep(store: Store, tenant: str, lent: Amounts, router: str, had: Amounts) -> None:
    """In the place of what was kept of the tenant's budgets, and of what that router has had of them.

    Raises StoreError.
    """
    with store.writing() as connection:
        _put(connection, LEDGER, [_lent(tenant, name, *amount) for name, amount in lent.items()])
        _put(
            connection,
            LOANS,
            [
                {"router": router, "tenant": tenant, "name": name, "had": amount, "at_s": at_s}
                for name, (amount, at_s) in had.items()
            ],
        )


def end(store: Store, router: str, lent: Mapping[str, Amounts]) -> None:
    """That router is gone. By tenant, in the place of what was kept of budgets. Raises StoreError."""
    with store.writing() as connection:
        _put(connection, LEDGER, [_lent(who, name, *had) for who, each in lent.items() for name, had in each.items()])
        connection.execute(delete(LOANS).where(LOANS.c.router == router))


def _lent(tenant: str, name: str, lent: float, begin_s: float) -> dict[str, Any]:
    return {"tenant": tenant, "name": name, "lent": lent, "begin_s": begin_s}


def _put(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    insert = INSERTS[connection.dialect.name](table)
    keys = [column.name for column in table.primary_key]
    new = {column.name: insert.excluded[column.name] for column in table.columns if column.name not in keys}
    connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=new), rows)
