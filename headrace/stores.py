"""Which store is meant: that of a run's name, or one that is named?"""

from pathlib import Path

from deployments.fleet import SQLITE, Fleet, StoreSettings, sqlite_url
from headrace.failure import bad_input
from headrace.folders import store_file

POSTGRESQL = "postgresql+psycopg://"


def stored(fleet: Fleet, name: str) -> Fleet:
    """The fleet with a store, by default one that its run's name finds again."""
    if fleet.store.url is not None:
        return fleet
    return fleet.model_copy(update={"store": StoreSettings(url=sqlite_url(store_file(name)))})


def check_shared(fleet: Fleet, nodes: int) -> None:
    """Refuses a file where routers may run on several machines, of which each would have its own. Raises Failure."""
    if nodes > 1 and fleet.store.url is not None and fleet.store.url.startswith(SQLITE):
        raise bad_input(
            f"store.url: a file serves routers of one machine, the cluster has {nodes}: "
            f"store: {{url: '{POSTGRESQL}USER:PASSWORD@HOST/DATABASE'}}"
        )


def store_url(given: str | None, run: str) -> str:
    """By `--store`, else the run's own, whether or not that is there. Raises Failure."""
    if given is None:
        return sqlite_url(store_file(run))
    if not given.startswith((SQLITE, POSTGRESQL)):
        raise bad_input(f"--store: should be {SQLITE}FILE or {POSTGRESQL}..., got {given!r}")
    if not is_there(given):
        raise bad_input(f"--store: {given.removeprefix(SQLITE)}: no such file")
    return given


def is_there(url: str) -> bool:
    """Whether its file exists; of a server that is not asked."""
    file = url.removeprefix(SQLITE)
    return file == url or Path(file).exists()
