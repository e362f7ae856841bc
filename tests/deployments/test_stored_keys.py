"""Are keys kept, ended and replaced as one change each, on either database, and is no key in what is kept?"""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import routing
from deployments import stored_keys
from deployments.api_key import ApiKey, hash_of, new_key
from deployments.fleet import sqlite_url
from deployments.store import Store
from deployments.stored_keys import NoSuchKey

DAY_S = 24 * 3600.0


def made(tenant: str = "alpha", now_s: float = 10.0, expires_s: float | None = None) -> ApiKey:
    return new_key(tenant, now_s=now_s, expires_s=expires_s)[1]


def test_what_was_kept_comes_back_and_each_change_raises_the_version(opened: Store) -> None:
    assert stored_keys.version(opened) == 0
    one = made()
    two = replace(made(now_s=11.0), models=("a", "b"), note="for tests", expires_s=20.0)
    stored_keys.add(opened, one)
    stored_keys.add(opened, two)
    assert stored_keys.every(opened) == [one, two]
    assert stored_keys.version(opened) == 2
    assert stored_keys.revoke(opened, one.id, 12.0) == one
    assert stored_keys.every(opened)[0] == replace(one, revoked_s=12.0)
    assert stored_keys.version(opened) == 3
    assert stored_keys.revoke(opened, one.id, 13.0).revoked_s == 12.0
    assert stored_keys.version(opened) == 3


def test_limits_of_a_key_come_back_as_they_were(opened: Store) -> None:
    limits = (
        routing.Limit(unit="requests", amount=60),
        routing.Limit(unit="tokens", amount=5e6, period=routing.Period.MONTH),
        routing.Limit(unit="gpu_s", amount=0.5, period=routing.Period.TOTAL),
    )
    key = replace(made(), limits=limits, account="12345678")
    stored_keys.add(opened, key)
    assert stored_keys.every(opened) == [key]
    assert stored_keys.one(opened, key.id).limits[1].name == "tokens/month"


def test_a_replaced_key_ends_after_the_grace_but_never_later_than_it_would_have(opened: Store) -> None:
    for expires_s, ends_s in ((None, 100.0), (50.0, 50.0), (500.0, 100.0)):
        old, new = made(expires_s=expires_s), made(now_s=20.0)
        stored_keys.add(opened, old)
        assert stored_keys.replace_key(opened, old.id, new, 100.0).expires_s == ends_s
        kept = {key.id: key for key in stored_keys.every(opened)}
        assert kept[new.id] == new
        assert (kept[old.id].state(ends_s - 1), kept[old.id].state(ends_s)) == ("works", "expired")


def test_what_works_no_longer_has_no_successor_and_nothing_is_half_done(opened: Store) -> None:
    old, new = made(), made()
    stored_keys.add(opened, old)
    stored_keys.revoke(opened, old.id, 11.0)
    for name, line in ((old.id, "revoked"), ("nobody", "no key 'nobody'")):
        with pytest.raises(NoSuchKey, match=line):
            stored_keys.replace_key(opened, name, new, 100.0)
    with pytest.raises(NoSuchKey):
        stored_keys.revoke(opened, "nobody", 1.0)
    assert [key.id for key in stored_keys.every(opened)] == [old.id]
    assert stored_keys.version(opened) == 2


def test_a_key_is_nowhere_in_what_is_kept_and_says_its_own_id(tmp_path: Path) -> None:
    file = tmp_path / "store.sqlite"
    store = Store(sqlite_url(file))
    text, key = new_key("alpha", now_s=1.0)
    stored_keys.add(store, key)
    store.close()
    begin, name, secret = text.split("-", 2)
    assert (begin, name, len(secret)) == ("hr", key.id, 43)
    assert key.hash == hash_of(text.encode())
    kept = file.read_bytes()
    assert key.hash.encode() in kept
    assert secret.encode() not in kept


@given(st.floats(0, 1e10), st.none() | st.floats(0, 1e10), st.none() | st.floats(0, 1e10))
def test_a_key_works_until_it_expires_and_never_once_revoked(
    now_s: float, expires_s: float | None, revoked_s: float | None
) -> None:
    key = replace(made(), expires_s=expires_s, revoked_s=revoked_s)
    works = revoked_s is None and (expires_s is None or now_s < expires_s)
    assert (key.state(now_s) == "works") == works
