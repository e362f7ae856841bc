"""What is lent of each tenant's budgets, by the store?"""

from collections.abc import Mapping

from sqlalchemy import select

from deployments.store import INSERTS, Store
from deployments.tables import LEDGER


def kept(store: Store) -> dict[tuple[str, str], tuple[float, float]]:
    """By tenant and name of limit: how much is lent, and since when. Raises StoreError."""
    with store.reading() as connection:
        rows = connection.execute(select(LEDGER)).mappings()
        return {(row["tenant"], row["name"]): (row["lent"], row["begin_s"]) for row in rows}


def keep(store: Store, tenant: str, budgets: Mapping[str, tuple[float, float]]) -> None:
    """In the place of what was kept of the tenant. Raises StoreError."""
    rows = [
        {"tenant": tenant, "name": name, "lent": lent, "begin_s": begin_s} for name, (lent, begin_s) in budgets.items()
    ]
    if not rows:
        return
    with store.writing() as connection:
        insert = INSERTS[connection.dialect.name](LEDGER)
        new = {"lent": insert.excluded.lent, "begin_s": insert.excluded.begin_s}
        connection.execute(insert.on_conflict_do_update(index_elements=["tenant", "name"], set_=new), rows)
