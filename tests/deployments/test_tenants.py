"""Is each request its tenant's, by its key alone, and as urgent as it may be?"""

import asyncio
import logging
from hashlib import sha256
from math import inf
from pathlib import Path
from time import monotonic

import pytest

from deployments.admission import TenantLimits
from deployments.file_errors import FileError
from deployments.fleet import Deadlines, RouterSettings, Tenant, validate
from deployments.key_ring import Headers, KeyRing
from deployments.openai_wire import ApiError
from deployments.sender import Sender
from deployments.tenants import sender
from routing import Tier
from tests.deployments.fake_engine import FakeEngine
from tests.deployments.forwarded import CHAT
from tests.deployments.http_served import MODEL, serve, until
from tests.deployments.lane_ends import Engine, make_door, token, turn

NONE = Deadlines()
KEYS = {"alpha": b"sk-alpha-1", "beta": b"sk-beta-1"}


def tenant(name: str, **what: object) -> Tenant:
    return Tenant(name=name, key_hashes=[sha256(KEYS[name]).hexdigest()], **what)  # type: ignore[arg-type]


BOTH = KeyRing([tenant("alpha"), tenant("beta", tier="standard")])


def sent(ring: KeyRing, headers: Headers, service_tier: object, deadlines: Deadlines = NONE) -> Sender:
    """As the router takes a request in."""
    return sender(ring.identify(headers), headers, service_tier, deadlines)


def bearer(key: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + key)]


def test_a_key_names_its_tenant_in_either_header() -> None:
    assert sent(BOTH, bearer(KEYS["alpha"]), None).tenant == "alpha"
    assert sent(BOTH, [(b"x-api-key", KEYS["beta"])], None).tenant == "beta"
    assert sent(BOTH, bearer(KEYS["alpha"]), None).cache_salt == "alpha"


@pytest.mark.parametrize("headers", [[], bearer(b"sk-other"), bearer(b""), [(b"authorization", b"Basic sk-alpha-1")]])
def test_without_a_known_key_nothing_is_answered(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(ApiError) as refused:
        sent(BOTH, headers, None)
    assert (refused.value.status, refused.value.code) == (401, "invalid_api_key")
    assert "sk-" not in str(refused.value)


def test_without_tenants_nobody_needs_a_key() -> None:
    assert sent(KeyRing([]), bearer(b"anything"), "priority") == Sender(tier=Tier.INTERACTIVE)


def test_a_service_tier_is_a_tier_and_a_tenants_own_is_the_most_it_gets() -> None:
    for asked, tier in (("priority", 0), ("default", 1), ("auto", 1), (None, 1), ("flex", 2)):
        assert sent(BOTH, bearer(KEYS["alpha"]), asked).tier == tier
        assert sent(BOTH, bearer(KEYS["beta"]), asked).tier == max(tier, 1)


@pytest.mark.parametrize("asked", ["fast", 3, ["priority"], ""])
def test_another_service_tier_is_refused(asked: object) -> None:
    with pytest.raises(ApiError) as refused:
        sent(BOTH, bearer(KEYS["alpha"]), asked)
    assert (refused.value.status, refused.value.body["error"]["param"]) == (400, "service_tier")


def test_a_deadline_is_a_number_of_seconds() -> None:
    header = (b"x-headrace-deadline-s", b"2.5")
    assert sent(BOTH, [*bearer(KEYS["alpha"]), header], None).deadline_s == 2.5
    for wrong in (b"0", b"-1", b"nan", b"inf", b"soon"):
        with pytest.raises(ApiError) as refused:
            sent(BOTH, [*bearer(KEYS["alpha"]), (header[0], wrong)], None)
        assert refused.value.status == 400


def test_a_request_without_a_deadline_has_that_of_the_tier_it_gets() -> None:
    deadlines = Deadlines(interactive=5, batch=600)
    alpha, beta = bearer(KEYS["alpha"]), bearer(KEYS["beta"])
    assert sent(BOTH, alpha, "priority", deadlines).deadline_s == 5
    assert sent(BOTH, alpha, None, deadlines).deadline_s == inf
    assert sent(BOTH, beta, "flex", deadlines).deadline_s == 600
    assert sent(BOTH, beta, "priority", deadlines).deadline_s == inf, "its tenant gets tier standard at most"
    assert sent(KeyRing([]), [], "flex", deadlines).deadline_s == 600
    assert sent(BOTH, [*alpha, (b"x-headrace-deadline-s", b"60")], "priority", deadlines).deadline_s == 60


@pytest.mark.parametrize("wrong", [{"interactive": 0}, {"standard": -1}, {"batch": "soon"}, {"urgent": 5}])
def test_a_file_with_a_deadline_that_is_none_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(FileError, match=rf"^router.deadlines.{next(iter(wrong))}: "):
        validate({"models": [{"name": "m", "source": "s"}], "router": {"deadlines": wrong}})


def test_a_file_with_the_same_key_or_name_twice_is_refused() -> None:
    one = {"name": "a", "key_hashes": ["0" * 64]}
    for other in ({"name": "a", "key_hashes": ["1" * 64]}, {"name": "b", "key_hashes": ["0" * 64]}):
        with pytest.raises(FileError, match="may appear once"):
            validate({"models": [{"name": "m", "source": "s"}], "tenants": [one, other]})


@pytest.mark.anyio
async def test_over_http_keys_are_asked_for_and_never_logged(
    tokenizer_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 5, "service_tier": "flex"}
    async with serve(tokenizer_folder, FakeEngine(), tenants=[tenant("alpha"), tenant("beta")]) as served:
        right = {"authorization": "Bearer sk-alpha-1"}
        assert (await served.http.post(CHAT, json=body)).status_code == 401
        assert (await served.http.get("/v1/models")).status_code == 401
        assert (await served.http.get("/ready")).status_code == 200
        assert (await served.http.post(CHAT, json=body, headers=right)).status_code == 200
        submit = served.engine.submits[-1]
        assert (submit.tenant, submit.tier, submit.cache_salt) == ("alpha", Tier.BATCH, "alpha")
        call = body | {"tools": [], "x": 1}
        assert (await served.http.post(CHAT, json=call, headers=right)).status_code < 500
        assert (served.engine.calls[-1].tenant, b'"cache_salt":"alpha"' in served.engine.calls[-1].body) == (
            "alpha",
            True,
        )
        refused = await served.http.post(CHAT, json=body | {"service_tier": "fast"}, headers=right)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "service_tier")
    assert not [line for line in caplog.text.splitlines() if "sk-alpha-1" in line]


@pytest.mark.anyio
async def test_over_http_what_waits_beyond_its_tiers_deadline_ends(tokenizer_folder: Path) -> None:
    settings = RouterSettings(deadlines=Deadlines(batch=0.01))
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 5}
    call = chat | {"tools": [], "do": "echo"}
    engine = FakeEngine(slots=1)
    async with serve(tokenizer_folder, engine, settings=settings) as served:
        for body in (chat, call):
            engine.stall()
            first = asyncio.ensure_future(served.http.post(CHAT, json=chat))
            await engine.until(lambda: engine.unfinished == 1)
            late = asyncio.ensure_future(served.http.post(CHAT, json=body | {"service_tier": "flex"}))
            await until(lambda: served.lane.queued_requests == 1)
            (waiting,) = served.lane._queue
            await until(lambda waiting=waiting: monotonic() > waiting.deadline_s)
            engine.go()
            assert (await first).status_code == 200
            answer = await late
            assert (answer.status_code, "deadline" in answer.json()["error"]["message"]) == (504, True)


@pytest.mark.anyio
async def test_a_tenant_at_its_limit_is_told_429_and_others_come_in() -> None:
    door = make_door(limits={"alpha": TenantLimits(queued_requests=2, open_requests=3)})
    engine = Engine(door.lane, slots=1)
    await engine.frame()
    alpha, beta = Sender(tenant="alpha"), Sender(tenant="beta")
    tickets = []
    for _ in range(3):
        tickets.append(door.enter(sender=alpha))
        await turn()
    for reason in ("open", "open"):
        with pytest.raises(ApiError, match=reason) as refused:
            door.enter(sender=alpha)
        assert (refused.value.status, refused.value.code) == (429, "too_many_requests")
        assert "retry-after" in refused.value.headers
    door.enter(sender=beta)
    door.lane.leave(tickets[-1])
    await engine.frame(token(tickets[0], finish="stop"))
    door.lane.leave(tickets[0])
    door.enter(sender=alpha)


@pytest.mark.anyio
async def test_two_tenants_with_requests_waiting_are_sent_in_turns() -> None:
    door = make_door()
    engine = Engine(door.lane, slots=1)
    await engine.frame()
    many = [door.enter(sender=Sender(tenant="alpha")) for _ in range(6)]
    few = [door.enter(sender=Sender(tenant="beta")) for _ in range(2)]
    by_number = {ticket.value.id: ticket for ticket in many + few}
    for _ in range(8):
        await turn()
        await engine.frame(token(by_number[engine.numbers[-1]], finish="stop"))
    tenants = [by_number[number].value.tenant for number in engine.numbers]
    assert sorted(tenants[:4]) == ["alpha", "alpha", "beta", "beta"]
