"""Which routes does a router with a store and a place for files offer besides?"""

from collections.abc import Callable
from functools import partial

from deployments.answering import answering
from deployments.batches.places import Places
from deployments.batches.routes import BatchRoutes
from deployments.batches.run import Surroundings
from deployments.batches.running import LEASE_S, LOOK_S, Batches, patient
from deployments.bill import Journal
from deployments.desks import Desks
from deployments.files.routes import FileRoutes
from deployments.files.shelf import Shelf
from deployments.fleet import RouterSettings
from deployments.in_process import Route
from deployments.key_ring import KeyRing
from deployments.late_store import LateStore
from deployments.router_metrics import RouterMetrics
from deployments.tolls import Tolls


def stored(
    store: LateStore,
    shelf: Shelf,
    desks: Desks,
    metrics: RouterMetrics,
    settings: RouterSettings,
    ring: KeyRing,
    journal: Journal | None,
    tolls: Tolls | None,
    log: Callable[[str], None],
    *,
    lease_s: float = LEASE_S,
    look_s: float = LOOK_S,
) -> "tuple[StoredRoutes, Batches]":
    """Those routes, and what runs batches in this router."""
    around = Surroundings(
        store=store,
        shelf=shelf,
        routes=answering(desks, metrics, patient(settings), journal, tolls),
        ring=ring,
        places=Places(desks),
        limits=settings.limits,
        lease_s=lease_s,
        kept_s=settings.batches_kept_days * 24 * 3600,
        log=log,
    )
    return StoredRoutes(store, shelf, settings), Batches(around, look_s)


class StoredRoutes:
    """Files and batches."""

    def __init__(self, store: LateStore, shelf: Shelf, settings: RouterSettings) -> None:
        self._files, self._batches = FileRoutes(store, shelf, settings), BatchRoutes(store, settings)

    def routes(self, path: str) -> dict[str, Route]:
        """By method; none where the path is no such route."""
        files, batches = self._files, self._batches
        if "\0" in path:  # nothing is called so, and PostgreSQL refuses it
            return {}
        match path.split("/")[1:]:
            case ["v1", "files"]:
                return {"GET": files.list, "POST": files.create}
            case ["v1", "files", name] if name:
                return {"GET": partial(files.retrieve, name), "DELETE": partial(files.delete, name)}
            case ["v1", "files", name, "content"] if name:
                return {"GET": partial(files.content, name)}
            case ["v1", "batches"]:
                return {"GET": batches.list, "POST": batches.create}
            case ["v1", "batches", name] if name:
                return {"GET": partial(batches.retrieve, name)}
            case ["v1", "batches", name, "cancel"] if name:
                return {"POST": partial(batches.cancel, name)}
        return {}
