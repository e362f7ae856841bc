"""Does a router tell what each tenant asked, had and waited for, without telling who holds which key?"""

from hashlib import sha256
from pathlib import Path

import pytest

from autoscaling import Targets
from deployments.admission import TenantLimits
from deployments.fleet import Tenant
from deployments.openai_wire import ApiError
from deployments.router_metrics import RouterMetrics
from deployments.sender import Sender
from routing import Tier
from tests.deployments.fake_engine import FakeEngine
from tests.deployments.forwarded import CHAT
from tests.deployments.http_served import MODEL, serve
from tests.deployments.lane_ends import Door, Engine, make_door, part, token, turn

pytestmark = pytest.mark.anyio
ALPHA, BATCH = Sender(tenant="alpha"), Sender(tenant="alpha", tier=Tier.BATCH)


def samples(door: Door) -> dict[str, float]:
    """Of tenants and tiers, by name and labels."""
    lines = RouterMetrics(Targets()).text([door.lane]).decode().splitlines()
    named = [line.rpartition(" ") for line in lines if line.startswith(("headrace_tenant", "headrace_wait"))]
    return {name: float(value) for name, _, value in named}


def of(tenant: str, tier: str) -> str:
    return f'{{model="m",tenant="{tenant}",tier="{tier}"}}'


async def test_tokens_and_what_waits_are_the_senders(door: Door) -> None:
    engine = Engine(door.lane, slots=2)
    await engine.frame()
    text = door.enter(10, sender=ALPHA)
    call = door.lane.call("/v1/responses", [], b"{}", 10, BATCH)
    await turn()
    door.tickets += [call]
    door.enter(20, sender=BATCH)
    await turn()
    await engine.frame(token(text), part(call, prompt_tokens=7, output_tokens=3))
    seen = samples(door)
    standard, batch = of("alpha", "standard"), of("alpha", "batch")
    assert seen[f"headrace_tenant_prompt_tokens_total{standard}"] == 10
    assert seen[f"headrace_tenant_output_tokens_total{standard}"] == 1
    assert seen[f"headrace_tenant_prompt_tokens_total{batch}"] == 7 + 20
    assert seen[f"headrace_tenant_output_tokens_total{batch}"] == 3
    assert seen[f"headrace_tenant_queued_requests{standard}"] == 0
    assert seen[f"headrace_tenant_queued_requests{batch}"] == 1
    assert (door.lane.shares.prompt_tokens, door.lane.shares.output_tokens) == (37, 4)


async def test_a_wait_is_counted_once_however_often_a_request_begins_again(door: Door) -> None:
    engine = Engine(door.lane)
    await engine.frame()
    tickets = [door.enter(sender=ALPHA), door.enter(sender=BATCH)]
    await turn()
    await engine.die()
    other = Engine(door.lane, name="b")
    await other.frame()
    assert len(other.numbers) == len(tickets)
    seen = samples(door)
    for sender in (of("alpha", "standard"), of("alpha", "batch")):
        assert seen[f"headrace_tenant_wait_seconds_count{sender}"] == 1
        assert 0 <= seen[f"headrace_tenant_wait_seconds_sum{sender}"] < 10
    for tier in ("standard", "batch"):
        assert seen[f'headrace_wait_seconds_bucket{{le="+Inf",model="m",tier="{tier}"}}'] == 1
        assert seen[f'headrace_wait_seconds_bucket{{le="10.0",model="m",tier="{tier}"}}'] == 1
    assert not [name for name in seen if "interactive" in name]


async def test_what_is_refused_at_the_door_is_its_senders_too() -> None:
    door, metrics = make_door(limits={"alpha": TenantLimits(queued_requests=1)}), RouterMetrics(Targets())
    for allowed in (True, False, False):
        try:
            with metrics.outcomes.door("m", ALPHA):
                door.enter(sender=ALPHA)
        except ApiError:
            assert not allowed
    lines = metrics.text([]).decode()
    assert 'headrace_tenant_requests_total{model="m",outcome="refused",tenant="alpha",tier="standard"} 2.0' in lines


async def test_over_http_outcomes_are_by_tenant_and_no_key_is_told(tokenizer_folder: Path) -> None:
    key = "sk-alpha-secret"
    tenant = Tenant(name="alpha", key_hashes=[sha256(key.encode()).hexdigest()])
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 5}
    async with serve(tokenizer_folder, FakeEngine(), tenants=[tenant]) as served:
        headers = {"authorization": f"Bearer {key}"}
        assert (await served.http.post(CHAT, json=body, headers=headers)).status_code == 200
        flex = body | {"service_tier": "flex", "tools": [], "do": "echo"}
        assert (await served.http.post(CHAT, json=flex, headers=headers)).status_code == 200
        assert (await served.http.post(CHAT, json=body)).status_code == 401
        text = (await served.http.get("/metrics")).text
    for tier in ("standard", "batch"):
        assert f'headrace_tenant_requests_total{{model="tiny",outcome="ok",tenant="alpha",tier="{tier}"}} 1.0' in text
    assert key not in text
    assert tenant.key_hashes[0] not in text
