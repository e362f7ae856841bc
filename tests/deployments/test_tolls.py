"""Is a tenant that is at a limit told so as OpenAI's clients expect, by every router, and let in again in time?"""

import asyncio
from contextlib import AsyncExitStack
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Any

import openai
import pytest

import routing
from deployments import tolls
from deployments.api_key import ApiKey, new_key
from deployments.file_errors import FileError
from deployments.fleet import Tenant, validate
from deployments.key_ring import KeyRing
from deployments.tolls import Tolls
from tests.deployments.fake_engine import CONTEXT_TOKENS, FakeEngine
from tests.deployments.forwarded import CHAT
from tests.deployments.http_served import MODEL, Served, idle, serve
from tests.deployments.ledger_here import At, Here, tenant, toll_keeper

pytestmark = pytest.mark.anyio

KEY = {"authorization": "Bearer sk-alpha"}
BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 5}


async def ask(served: Served, **more: Any) -> Any:
    return await served.http.post(CHAT, json=BODY | more, headers=KEY)


async def test_requests_per_minute_hold_over_two_routers_and_others_are_not_asked_about(
    tokenizer_folder: Path,
) -> None:
    alpha, ledger = tenant(requests_per_min=10), Here()
    beta = Tenant(name="beta", key_hashes=[sha256(b"sk-beta").hexdigest()])
    async with AsyncExitStack() as stack:
        routers = [
            await stack.enter_async_context(
                serve(tokenizer_folder, FakeEngine(), tenants=[alpha, beta], tolls=toll_keeper(alpha, At(ledger, name)))
            )
            for name in "rs"
        ]
        answers = [await ask(routers[number % 2]) for number in range(14)]
        refused = [answer for answer in answers if answer.status_code != 200]
        assert len(refused) == 4
        for answer in refused:
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["type"]) == (429, "rate_limit_exceeded", "requests")
            assert 1 <= int(answer.headers["retry-after"]) <= 61
        asked = ledger.asked
        other = await routers[0].http.post(CHAT, json=BODY, headers={"authorization": "Bearer sk-beta"})
        assert (other.status_code, ledger.asked) == (200, asked)


async def test_of_tokens_a_minute_is_charged_what_was_used(tokenizer_folder: Path) -> None:
    alpha, ledger = tenant(tokens_per_min=300), Here()
    async with serve(tokenizer_folder, FakeEngine(), tenants=[alpha], tolls=toll_keeper(alpha, ledger)) as served:
        prompt = len(await served.chat_ids("x"))
        used = 0
        # It may take much more than it does: what it doesn't take is free again when it ends.
        while (answer := await ask(served, max_tokens=100, stop=["n"])).status_code == 200:
            used += answer.json()["usage"]["total_tokens"]
        assert 300 - prompt - 100 < used <= 300
        assert answer.json()["error"]["type"] == "tokens"
        call = await served.http.post(CHAT, json=BODY | {"tools": [], "do": "echo", "max_tokens": 200}, headers=KEY)
        assert call.status_code == 429
        await idle(served)


async def test_a_budget_covers_the_most_a_request_may_take_and_is_never_exceeded(tokenizer_folder: Path) -> None:
    alpha, ledger = tenant(budgets=[{"tokens": 200, "per": "month"}]), Here()
    async with serve(tokenizer_folder, FakeEngine(), tenants=[alpha], tolls=toll_keeper(alpha, ledger)) as served:
        answers = await asyncio.gather(*(ask(served, max_tokens=20) for _ in range(20)))
        used = sum(answer.json()["usage"]["total_tokens"] for answer in answers if answer.status_code == 200)
        assert 0 < used <= 200
        assert {answer.status_code for answer in answers} == {200, 429}
        for answer in answers:
            if answer.status_code == 429:
                assert answer.json()["error"]["code"] in ("rate_limit_exceeded", "insufficient_quota")
        while (answer := await ask(served, max_tokens=20)).status_code == 200:
            used += answer.json()["usage"]["total_tokens"]
        assert used <= 200
        error = answer.json()["error"]
        assert (error["code"], error["type"]) == ("insufficient_quota", "insufficient_quota")
        assert int(answer.headers["retry-after"]) > 0
        client = served.openai.copy(api_key="sk-alpha")
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}])
        await idle(served)


def keyed(*limits: routing.Limit, account: str | None = None, tenant: str = "alpha") -> tuple[dict[str, str], ApiKey]:
    """A key of the store with limits of its own, as a header and as kept."""
    text, key = new_key(tenant, now_s=time(), limits=limits, account=account)
    return {"authorization": f"Bearer {text}"}, key


async def test_limits_of_a_key_hold_over_two_routers_beside_those_of_its_tenant(tokenizer_folder: Path) -> None:
    alpha, ledger = tenant(requests_per_min=8), Here()
    small, key = keyed(routing.Limit(unit="requests", amount=3))
    async with AsyncExitStack() as stack:
        routers = [
            await stack.enter_async_context(
                serve(
                    tokenizer_folder,
                    FakeEngine(),
                    ring=KeyRing([alpha], stored=[key]),
                    tolls=toll_keeper(alpha, At(ledger, name)),
                )
            )
            for name in "rs"
        ]
        answers = [await routers[number % 2].http.post(CHAT, json=BODY, headers=small) for number in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 2
        told = answers[-1].json()["error"]["message"]
        assert told.startswith(f"Rate limit of key {key.id}: 0 of 3 requests are left")
        others = [(await ask(routers[number % 2])).status_code for number in range(8)]
        assert sorted(others) == [200] * 5 + [429] * 3, "what was let in with the key was the tenant's too"


async def test_a_budget_of_a_key_is_used_up_together_with_its_successor(tokenizer_folder: Path) -> None:
    budget, ledger = routing.Limit(unit="tokens", amount=200, period=routing.Period.MONTH), Here()
    old, first = keyed(budget)
    new, second = keyed(budget, account=first.id)
    ring = KeyRing([], stored=[first, second])
    async with serve(tokenizer_folder, FakeEngine(), ring=ring, tolls=Tolls([], ledger, print)) as served:
        used = 0
        for headers in (old, new) * 20:
            answer = await served.http.post(CHAT, json=BODY | {"max_tokens": 20}, headers=headers)
            used += answer.json()["usage"]["total_tokens"] if answer.status_code == 200 else 0
        assert 100 < used <= 200
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (429, "insufficient_quota")
        assert error["message"].startswith(f"Budget of key {first.id}:")
        assert ledger.ledger.kept(f"key {first.id}")["tokens/month"][0] <= 200
        await idle(served)


async def test_a_key_without_limits_is_not_asked_about(tokenizer_folder: Path) -> None:
    headers, key = keyed()
    ledger = Here()
    ring = KeyRing([], stored=[key])
    async with serve(tokenizer_folder, FakeEngine(), ring=ring, tolls=Tolls([], ledger, print)) as served:
        for _ in range(3):
            assert (await served.http.post(CHAT, json=BODY, headers=headers)).status_code == 200
        assert ledger.asked == 0


async def test_what_running_requests_hold_is_told_as_such(tokenizer_folder: Path) -> None:
    alpha, ledger = tenant(budgets=[{"tokens": 2 * CONTEXT_TOKENS, "per": "total"}]), Here()
    engine = FakeEngine()
    async with serve(tokenizer_folder, engine, tenants=[alpha], tolls=toll_keeper(alpha, ledger)) as served:
        engine.stall()
        first = asyncio.ensure_future(ask(served, max_tokens=CONTEXT_TOKENS - 100))
        await engine.until(lambda: engine.unfinished == 1)
        refused = await ask(served, max_tokens=CONTEXT_TOKENS)
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        held = await served.http.post(CHAT, json=BODY | {"max_tokens": None, "n": 2}, headers=KEY)
        error = held.json()["error"]
        assert (held.status_code, error["code"]) == (429, "rate_limit_exceeded")
        assert "requests that run hold" in error["message"]
        first.cancel()
        await engine.until(lambda: engine.unfinished == 0)
        engine.go()
        assert (await ask(served)).status_code == 200
        await idle(served)


async def test_gpu_seconds_are_charged_as_engines_tell_them_also_of_who_left(tokenizer_folder: Path) -> None:
    alpha, ledger = tenant(budgets=[{"gpu_s": 20.0, "per": "day"}]), Here()
    async with serve(tokenizer_folder, FakeEngine(), tenants=[alpha], tolls=toll_keeper(alpha, ledger)) as served:
        assert (await ask(served)).status_code == 200
        body = BODY | {"stream": True, "max_tokens": 20}
        async with served.http.stream("POST", CHAT, json=body, headers=KEY) as answer:
            await served.engine.until(lambda: served.engine.said_tokens > 3)
            assert answer.status_code == 200
        await idle(served)
        codes = [(await ask(served)).status_code for _ in range(12)]
        assert codes[0] == 200
        assert codes[-1] == 429
        assert codes.count(200) * 2.5 <= 20.0 - 2.5


async def test_a_flood_of_refused_requests_does_not_reach_the_ledger(
    tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tolls, "DRY_S", 30.0)
    alpha, ledger = tenant(requests_per_min=3), Here()
    async with serve(tokenizer_folder, FakeEngine(), tenants=[alpha], tolls=toll_keeper(alpha, ledger)) as served:
        answers = await asyncio.gather(*(ask(served) for _ in range(100)))
        assert sum(answer.status_code == 200 for answer in answers) == 3
        assert ledger.asked <= 5


async def test_what_is_refused_for_another_reason_costs_nothing(tokenizer_folder: Path) -> None:
    alpha, ledger = tenant(requests_per_min=2, max_open_requests=1), Here()
    async with serve(
        tokenizer_folder, FakeEngine(refuse="no"), tenants=[alpha], tolls=toll_keeper(alpha, ledger)
    ) as served:
        for _ in range(5):
            answer = await ask(served, max_tokens=CONTEXT_TOKENS)
            assert answer.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"budgets": [{"per": "day"}]}, "either tokens or gpu_s"),
        ({"budgets": [{"tokens": 5, "gpu_s": 5, "per": "day"}]}, "either tokens or gpu_s"),
        ({"budgets": [{"tokens": 5, "per": "week"}]}, "per"),
        ({"budgets": [{"tokens": 5, "per": "day"}] * 2}, "one budget of a kind, tokens/day appears 2 times"),
        ({"requests_per_min": 0}, "requests_per_min"),
    ],
)
def test_a_limit_that_is_none_is_refused(wrong: dict[str, object], line: str) -> None:
    with pytest.raises(FileError, match=line):
        validate({"models": [{"name": "m", "source": "s"}], "tenants": [{"name": "alpha", **wrong}]})
