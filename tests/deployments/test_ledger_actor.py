"""Is there one ledger for all routers of a real Ray, and does what it lent outlive it?"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from time import time
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

import routing
from deployments.fleet import sqlite_url
from deployments.ledger_actor import NAME, NAMESPACE, RayLedger

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

MINUTE = routing.Limit(unit="requests", amount=10)
BUDGET = routing.Limit(unit="tokens", amount=100, period=routing.Period.TOTAL)
BOTH = [MINUTE, BUDGET]


@pytest.fixture
async def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """URL of a store; Ray runs."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield sqlite_url(tmp_path / "store.sqlite")
    ray.shutdown()


NOTHING = {limit.name: 0.0 for limit in BOTH}


async def left(ledger: RayLedger, limit: routing.Limit, had: Mapping[str, float] = NOTHING) -> float:
    loan = await ledger.borrow("alpha", BOTH, had, {limit.name: 1e6}, {})
    assert loan.short == limit.name
    return loan.left


async def answers(actor: Any) -> bool:
    try:
        await actor.settle.remote("r", "beta", [MINUTE], {MINUTE.name: 0.0}, time())
    except RayActorError:
        return False
    return True


async def left_of_the_next(ledger: RayLedger, limit: routing.Limit) -> float:
    """Of the next ledger, which is asked once the router has heard that its former one is lost."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await left(ledger, limit)
            except RayActorError:
                continue


async def test_routers_share_one_and_what_it_lent_outlives_it(started: str) -> None:
    one, other = RayLedger(started, "one"), RayLedger(started, "other")
    needs = {MINUTE.name: 4, BUDGET.name: 40}
    assert (await one.borrow("alpha", BOTH, NOTHING, needs, {})).amounts == needs
    assert await left(other, MINUTE) == 6
    assert await left(other, BUDGET) == 60
    await one.settle("alpha", BOTH, needs | {BUDGET.name: 25.0})
    assert await left(other, BUDGET) == 75
    actor = ray.get_actor(NAME, namespace=NAMESPACE)
    ray.kill(actor, no_restart=True)
    async with asyncio.timeout(60):
        while await answers(actor):
            pass
    assert await left_of_the_next(other, BUDGET) == 75
    assert await left_of_the_next(other, MINUTE) == 6
    await other.end("one", {"alpha": routing.Spent(time(), {BUDGET.name: 5.0})})
    assert await left(other, BUDGET) == 95
    assert await left(other, MINUTE) == 6
