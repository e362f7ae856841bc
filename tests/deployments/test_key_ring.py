"""Do keys of the file and of the store open what they should, and nobody else's anything?"""

import asyncio
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from time import monotonic, time

import pytest

import routing
from deployments import key_watch, stored_keys
from deployments.api_key import ApiKey, new_key
from deployments.fleet import RouterSettings, Tenant, sqlite_url
from deployments.key_ring import KeyRing
from deployments.key_watch import KeyWatch
from deployments.late_store import LateStore
from deployments.openai_wire import ApiError
from deployments.store import Store
from tests.deployments.fake_engine import FakeEngine
from tests.deployments.forwarded import CHAT
from tests.deployments.http_served import MODEL, serve, until

BODY = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 3}
ALPHA = Tenant(name="alpha", key_hashes=[sha256(b"sk-alpha").hexdigest()], weight=3)


def bearer(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {key}".encode())]


def made(tenant: str, **what: object) -> tuple[str, ApiKey]:
    return new_key(tenant, now_s=time(), **what)  # type: ignore[arg-type]


def refused(ring: KeyRing, headers: list[tuple[bytes, bytes]]) -> tuple[int, str | None]:
    with pytest.raises(ApiError) as told:
        ring.identify(headers)
    return told.value.status, told.value.code


def test_keys_of_file_and_store_name_their_tenants_with_the_file_s_terms() -> None:
    known, stranger = made("alpha"), made("gamma", models=("tiny",))
    ring = KeyRing([ALPHA], stored=[known[1], stranger[1]])
    for key in ("sk-alpha", known[0]):
        holder = ring.identify(bearer(key))
        assert holder is not None
        assert (holder.tenant, holder.models) == (ALPHA, None)
    holder = ring.identify(bearer(stranger[0]))
    assert holder is not None
    assert (holder.tenant, holder.key, holder.models) == (Tenant(name="gamma"), stranger[1].id, {"tiny"})
    assert refused(ring, bearer(known[0][:-1])) == (401, "invalid_api_key")
    assert refused(ring, []) == (401, "invalid_api_key")


def test_what_a_key_asked_for_earlier_has_the_key_s_own_limits_too() -> None:
    limit = routing.Limit(unit="tokens", amount=100)
    text, key = made("gamma", models=("tiny",), limits=(limit,))
    ring = KeyRing([ALPHA], stored=[key])
    assert ring.holder("gamma", key.id, ["tiny"]) == ring.identify(bearer(text))
    ring.hear([replace(key, revoked_s=time())])
    later = ring.holder("gamma", key.id, ["tiny"])
    assert later is not None
    assert later.limits == (limit,), "it doesn't get rid of them by its end"


def test_revoked_and_expired_keys_open_nothing_and_keep_the_door_closed() -> None:
    gone, late = made("alpha"), made("beta", expires_s=time() - 1)
    revoked = ApiKey(id="x", hash=gone[1].hash, tenant="alpha", created_s=0.0, revoked_s=1.0)
    ring = KeyRing([], stored=[revoked, late[1]])
    for headers in ([], bearer(gone[0]), bearer(late[0])):
        assert refused(ring, headers) == (401, "invalid_api_key")


def test_who_may_come_in_without_a_key() -> None:
    key = made("alpha")
    assert KeyRing([]).identify([]) is None
    assert KeyRing([], lets_in=True, stored=[key[1]]).identify(bearer("none")) is None
    holder = KeyRing([], lets_in=True, stored=[key[1]]).identify(bearer(key[0]))
    assert holder is not None
    assert holder.tenant.name == "alpha"
    for closed in (KeyRing([], lets_in=False), KeyRing([Tenant(name="alpha")])):
        assert refused(closed, []) == (401, "invalid_api_key")


def test_while_the_store_s_keys_are_not_known_only_those_of_the_file_open() -> None:
    ring = KeyRing([ALPHA], stored=None)
    assert ring.identify(bearer("sk-alpha")) is not None
    assert refused(ring, bearer("hr-unknown")) == (503, "keys_unknown")
    assert refused(KeyRing([], stored=None), []) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("host", "said", "lets_in"),
    [
        ("127.0.0.1", None, None),
        ("::1", None, None),
        ("localhost", None, None),
        ("0.0.0.0", None, False),
        ("host.example", None, False),
        ("0.0.0.0", True, True),
        ("127.0.0.1", False, False),
    ],
)
def test_only_loopback_is_open_unless_the_file_says_so(host: str, said: bool | None, lets_in: bool | None) -> None:
    assert RouterSettings(host=host, open=said).lets_in is lets_in


@pytest.mark.anyio
async def test_a_key_of_some_models_opens_no_other(tokenizer_folder: Path) -> None:
    here, other = made("alpha", models=(MODEL,)), made("alpha", models=("big",))
    ring = KeyRing([], stored=[here[1], other[1]])
    call = BODY | {"tools": [], "do": "echo"}
    async with serve(tokenizer_folder, FakeEngine(), ring=ring) as served:
        mine, others = ({"authorization": f"Bearer {key}"} for key in (here[0], other[0]))
        for body in (BODY, call):
            assert (await served.http.post(CHAT, json=body, headers=mine)).status_code == 200
            answer = await served.http.post(CHAT, json=body, headers=others)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_allowed")
        nameless = {"messages": call["messages"], "tools": [], "do": "echo"}
        assert (await served.http.post(CHAT, json=nameless, headers=others)).status_code == 403
        for headers, count in ((mine, 1), (others, 0)):
            assert len((await served.http.get("/v1/models", headers=headers)).json()["data"]) == count
        assert (await served.http.get(f"/v1/models/{MODEL}", headers=others)).status_code == 403


@pytest.mark.anyio
async def test_a_made_key_works_and_a_revoked_one_stops_without_a_restart(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    """Within the time between two looks, and a second for the look itself, on a machine that does more."""
    late = LateStore(sqlite_url(tmp_path / "store.sqlite"))
    ring, watch, said = KeyRing([], stored=None), KeyWatch(late), list[str]()
    await key_watch.begin(watch, ring.hear, said.append)
    looking = asyncio.ensure_future(key_watch.go_on(watch, ring.hear, said.append))
    async with serve(tokenizer_folder, FakeEngine(), ring=ring) as served:
        assert (await served.http.post(CHAT, json=BODY)).status_code == 200, "no key was ever made"
        text, key = made("alpha")

        async def turns(status: int) -> float:
            begin_s = monotonic()
            async with asyncio.timeout(20):
                while (await served.http.post(CHAT, json=BODY, headers=headers)).status_code != status:
                    await asyncio.sleep(0.01)
            return monotonic() - begin_s

        headers = {"authorization": "Bearer other"}
        await asyncio.to_thread(stored_keys.add, late.opened(), key)
        assert await turns(401) < key_watch.LOOK_S + 1
        headers = {"authorization": f"Bearer {text}"}
        assert (await served.http.post(CHAT, json=BODY, headers=headers)).status_code == 200
        assert served.engine.submits[-1].tenant == "alpha"
        await asyncio.to_thread(stored_keys.revoke, late.opened(), key.id, time())
        assert await turns(401) < key_watch.LOOK_S + 1
        assert (await served.http.post(CHAT, json=BODY)).status_code == 401, "the last key's end opens nothing"
    looking.cancel()
    late.close()
    assert said == []


@pytest.mark.anyio
async def test_keys_that_can_t_be_read_are_kept_and_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_watch, "LOOK_S", 0.001)
    file, said, heard = tmp_path / "store.sqlite", list[str](), list[int]()
    file.write_text("no database at all, but a text that is long enough to be read as one: " * 20)
    watch = KeyWatch(LateStore(sqlite_url(file)))
    await key_watch.begin(watch, lambda keys: heard.append(len(keys)), said.append)
    assert len(said) == 1
    assert said[0].startswith("keys are not read now, those known go on working: StoreError")
    looking = asyncio.ensure_future(key_watch.go_on(watch, lambda keys: heard.append(len(keys)), said.append))
    await until(lambda: len(said) == 2)
    file.unlink()
    store = Store(sqlite_url(file))
    await until(lambda: heard == [0])
    stored_keys.add(store, made("alpha")[1])
    await until(lambda: heard == [0, 1])
    looking.cancel()
    store.close()
    assert len(said) == 2
