"""What does `headrace keys` do: make, list, end and replace the keys of a fleet?"""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

import routing
from deployments import stored_keys
from deployments.api_key import ApiKey, new_key
from deployments.key_watch import LOOK_S
from deployments.store import Store, StoreError
from deployments.stored_keys import NoSuchKey
from headrace.failure import Failure, bad_input
from headrace.key_limits import shown
from headrace.spans import span_s
from headrace.stores import store_url

TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
KEY = re.compile(r"hr-([0-9a-f]{8})-[A-Za-z0-9_-]+")
SOON = f"within {LOOK_S + 1:.0f} s in routers that run"
FORMAT = 1


def create(
    tenant: str,
    models: list[str],
    *,
    expires: str | None,
    note: str,
    limits: tuple[routing.Limit, ...] = (),
    run: str,
    store: str | None,
    as_json: bool,
) -> None:
    """Makes a key and shows it this once. Raises Failure."""
    if not TENANT.fullmatch(tenant):
        raise bad_input(f"--tenant: should be letters, digits, '.', '_' and '-', got {tenant!r}")
    now_s = time.time()
    expires_s = None if expires is None else now_s + span_s(expires, "--expires")
    text, key = new_key(
        tenant, now_s=now_s, models=tuple(models) or None, note=note, expires_s=expires_s, limits=limits
    )
    with _opened(store, run) as there:
        stored_keys.add(there, key)
    _show(text, key, as_json, f"key {key.id} of tenant {tenant}, shown this once; it works {SOON}")


def rotate(name: str, *, grace: str, run: str, store: str | None, as_json: bool) -> None:
    """Makes a successor, and lets the old key end after a while. Raises Failure."""
    now_s, grace_s = time.time(), span_s(grace, "--grace")
    with _opened(store, run) as there:
        old = stored_keys.one(there, _id(name))
        lasts_s = None if old.expires_s is None else old.expires_s - old.created_s
        expires_s = None if lasts_s is None else now_s + lasts_s
        text, key = new_key(
            old.tenant,
            now_s=now_s,
            models=old.models,
            note=old.note,
            expires_s=expires_s,
            limits=old.limits,
            account=old.account or old.id,
        )
        kept = stored_keys.replace_key(there, old.id, key, now_s + grace_s)
    ends = _date(kept.expires_s)
    _show(text, key, as_json, f"key {key.id} of tenant {key.tenant} replaces {old.id}, which works until {ends}")


def revoke(name: str, *, run: str, store: str | None) -> None:
    """Ends a key. Raises Failure."""
    with _opened(store, run) as there:
        found = stored_keys.revoke(there, _id(name), time.time())
    if found.revoked_s is not None:
        print(f"key {found.id} of tenant {found.tenant} was revoked {_date(found.revoked_s)} already")
    else:
        print(f"key {found.id} of tenant {found.tenant} is revoked: refused {SOON}; answers that run end by themselves")


def show(*, everything: bool, run: str, store: str | None, as_json: bool) -> None:
    """Lists keys, never more of one than its id. Raises Failure."""
    now_s = time.time()
    with _opened(store, run) as there:
        keys = [key for key in stored_keys.every(there) if everything or key.state(now_s) == "works"]
    if as_json:
        print(json.dumps({"format": FORMAT, "keys": [_told(key, now_s) for key in keys]}, indent=1))
        return
    columns = ("id", "tenant", "models", "limits", "note", "created", "expires", "state")
    table = Table(*columns, box=None, pad_edge=False)
    for key in keys:
        models = ", ".join(key.models) if key.models is not None else "all"
        dates = _date(key.created_s), _date(key.expires_s)
        table.add_row(key.id, key.tenant, models, shown(key.limits), key.note, *dates, key.state(now_s))
    Console(highlight=False).print(table)


def _show(text: str, key: ApiKey, as_json: bool, said: str) -> None:
    if as_json:
        print(json.dumps({"format": FORMAT, "key": text, **_told(key, key.created_s)}, indent=1))
        return
    Console(stderr=True, highlight=False).print(said, markup=False, soft_wrap=True)
    print(text)


def _told(key: ApiKey, now_s: float) -> dict[str, Any]:
    """Without its hash, which is of no use to anybody else."""
    return {name: value for name, value in asdict(key).items() if name != "hash"} | {"state": key.state(now_s)}


def _id(name: str) -> str:
    """Of a key that is given by its id or whole."""
    found = KEY.fullmatch(name)
    return found[1] if found else name


def _date(at_s: float | None) -> str:
    return "never" if at_s is None else f"{datetime.fromtimestamp(at_s):%Y-%m-%d %H:%M}"


@contextmanager
def _opened(store: str | None, run: str) -> Iterator[Store]:
    try:
        there = Store(store_url(store, run))
        try:
            yield there
        finally:
            there.close()
    except NoSuchKey as error:
        raise bad_input(str(error)) from None
    except StoreError as error:
        raise Failure(str(error)) from None
