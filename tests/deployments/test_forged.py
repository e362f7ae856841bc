"""Does a request become whose its key is, and no more urgent, whatever its headers and fields claim?"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from time import time
from typing import Any

import pytest

from deployments.api_key import new_key
from deployments.fleet import Tenant
from deployments.key_ring import KeyRing
from routing import Tier
from tests.deployments.fake_engine import FakeEngine
from tests.deployments.http_served import CHAT, MODEL, Served, serve

pytestmark = pytest.mark.anyio

FORGED = {
    "x-tenant": "beta",
    "x-headrace-tenant": "beta",
    "x-headrace-tier": "interactive",
    "x-headrace-key": "file-1",
    "openai-organization": "beta",
    "openai-project": "beta",
    "x-priority": "-9",
    "x-vllm-priority": "-9",
    "x-data-parallel-rank": "0",
    "x-session-id": "beta",
    "x-request-id": "another-s",
    "x-correlation-id": "another-s",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-host": "127.0.0.1",
    "x-forwarded-user": "beta",
    "x-real-ip": "127.0.0.1",
    "forwarded": "for=127.0.0.1",
    "host": "localhost",
    "cookie": "ray-authentication-token=beta; tenant=beta",
    "serve_multiplexed_model_id": "big",
}
TEXT_BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 3}
CALL_BODY = TEXT_BODY | {"tools": [], "do": "echo"}
ALPHA, BETA = Tenant(name="alpha", tier="batch"), Tenant(name="beta", tier="interactive")


@pytest.fixture(scope="module")
async def keyed(tokenizer_folder: Path) -> AsyncIterator[tuple[Served, dict[str, str]]]:
    """A server of two tenants, and the header with a key of the one that gets tier batch at most."""
    text, key = new_key("alpha", now_s=time())
    async with serve(tokenizer_folder, FakeEngine(), ring=KeyRing([ALPHA, BETA], stored=[key])) as served:
        yield served, {"authorization": f"Bearer {text}"}


@pytest.mark.parametrize("body", [TEXT_BODY, CALL_BODY], ids=["text", "call"])
@pytest.mark.parametrize("tier", [None, "priority", "auto"])
async def test_tenant_and_tier_are_the_key_s_whatever_headers_say(
    keyed: tuple[Served, dict[str, str]], body: dict[str, Any], tier: str | None
) -> None:
    served, key = keyed
    answer = await served.http.post(CHAT, json=body | {"service_tier": tier}, headers=FORGED | key)
    assert answer.status_code == 200
    got = (served.engine.calls if body is CALL_BODY else served.engine.submits)[-1]
    assert (got.tenant, got.tier) == ("alpha", Tier.BATCH)
    told = str(got.headers) + got.body.decode() if body is CALL_BODY else f"{got.cache_salt} {got.sampling}"
    assert "alpha" in told
    for claimed in ("beta", "another-s", "127.0.0.1", "-9"):
        assert claimed not in told
    assert "another-s" not in answer.text
    assert "another-s" not in str(answer.headers)


async def test_no_header_stands_for_a_key(keyed: tuple[Served, dict[str, str]]) -> None:
    served, key = keyed
    served.engine.forget()
    wrong = [
        FORGED,
        FORGED | {"authorization": key["authorization"].replace("hr-", "hr_")},
        FORGED | {"proxy-authorization": key["authorization"], "x-ray-authorization": key["authorization"]},
        FORGED | {"cookie": f"authorization={key['authorization']}"},
    ]
    for headers in wrong:
        answer = await served.http.post(CHAT, json=TEXT_BODY, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        bearer = key["authorization"].removeprefix("Bearer ")
        answer = await served.http.post(f"{CHAT}?api_key={bearer}", json=TEXT_BODY | {"api_key": bearer})
        assert answer.status_code == 401
    assert not served.engine.submits


async def test_two_requests_that_claim_one_id_are_two(keyed: tuple[Served, dict[str, str]]) -> None:
    served, key = keyed
    served.engine.forget()
    headers = key | {"x-request-id": "mine"}
    answers = await asyncio.gather(*(served.http.post(CHAT, json=TEXT_BODY, headers=headers) for _ in range(2)))
    assert len({answer.json()["id"] for answer in answers}) == 2
    assert len({submit.request for submit in served.engine.submits}) == 2


@pytest.mark.parametrize(
    "name",
    ["priority", "cache_salt", "kv_transfer_params", "request_id", "session_id", "vllm_xargs", "data_parallel_rank"],
)
async def test_fields_of_the_engine_are_refused_of_whom_has_a_key_too(
    keyed: tuple[Served, dict[str, str]], name: str
) -> None:
    served, key = keyed
    served.engine.forget()
    for body in (TEXT_BODY, CALL_BODY):
        answer = await served.http.post(CHAT, json=body | {name: "alpha"}, headers=key)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
    assert not served.engine.submits
    assert not served.engine.calls
