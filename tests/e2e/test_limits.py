"""Do limits and budgets hold on a real fleet with two routers, whoever of it is killed meanwhile?"""

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any

import httpx
import psutil
import pytest

from headrace.observe import samples
from tests.e2e.limits_press import Presser, least_before_a_refusal, most_within_a_minute
from tests.e2e.typed import DetachedFleet, detached_fleet, headrace

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1800)]

FLEET = """
models:
  - name: tiny
    source: tiny
    engine: {dtype: float32, max_model_len: 128, max_num_seqs: 24, kv_cache_memory_bytes: 67108864}
router: {port: {port}, replicas: 2}
tenants:
  - {name: requests, requests_per_min: 300}
  - {name: tokens, tokens_per_min: 12000}
  - {name: token-budget, budgets: [{tokens: 10000, per: total}]}
  - {name: gpu-budget, budgets: [{gpu_s: 15, per: total}]}
"""
REQUESTS, TOKENS, OF_KEY, BUDGET_TOKENS, BUDGET_GPU_S = 300, 12_000, 200, 10_000, 15.0
CALM_S, AFTER_S = 90.0, 20.0
HURRY_S = 1.0
BACK_S = 150.0
USED_UP_S = 400.0
"""Within which clients that hurry use budgets up."""
MINUTES = {"requests": REQUESTS, "tokens": TOKENS, "of-a-key": OF_KEY}
"""Limits per minute, by who has them."""
ROUTER, LEDGER = "ServeReplica:headrace:router", "LedgerActor"
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DetachedFleet]:
    fleet = detached_fleet(tmp_path_factory.mktemp("limits"), FLEET)
    yield fleet
    fleet.stop()
    assert fleet.processes() == []


def test_limits_and_budgets_hold_over_two_routers_that_are_killed_with_their_ledger(
    fleet: DetachedFleet, record_property: Record
) -> None:
    keys = {name: key(fleet, name) for name in ("requests", "tokens", "token-budget", "gpu-budget")}
    keys["of-a-key"] = key(fleet, "of-a-key", "--requests-per-min", str(OF_KEY))
    fleet.start()
    pressers = {
        name: Presser(fleet.url, text, clients=5, answer_tokens=4 if name in ("requests", "of-a-key") else 20)
        for name, text in keys.items()
    }
    asyncio.run(pressed(fleet, pressers, record_property))
    for name, limit in MINUTES.items():
        hold_minutes(name, limit, pressers[name], record_property)
    hold_budgets(fleet, pressers, record_property)


def key(fleet: DetachedFleet, tenant: str, *limits: str) -> str:
    made = headrace("keys", "create", "--tenant", tenant, *limits, env=fleet.env, timeout_s=60.0)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


async def pressed(fleet: DetachedFleet, pressers: dict[str, Presser], record_property: Record) -> None:
    """Undisturbed first, then while one after the other is killed, then until budgets are used up and long after."""
    budgets = [pressers["token-budget"], pressers["gpu-budget"]]
    for budget in budgets:
        budget.paced = True
    async with pressing(pressers.values()):
        await asyncio.sleep(CALM_S)
        shares = await answered_by(fleet.url)
        record_property("requests by router", sorted(shares.values()))
        assert len(shares) == 2
        assert min(shares.values()) > 0.2 * sum(shares.values())
        one, other = fleet.processes(ROUTER)
        for name, process in (("router", one), ("other router", other), ("ledger", None)):
            killed = process or await the_ledger(fleet)
            record_property(f"seconds without {name}", await killed_and_back(fleet, killed))
        for budget in budgets:
            budget.hurry()
        await asyncio.sleep(HURRY_S)
        record_property("a budget ended before the last kill", [used_up(budget) for budget in budgets])
        assert not any(used_up(budget) for budget in budgets)
        taken = random.choice(fleet.processes(ROUTER))
        record_property("seconds without a router amid requests", await killed_and_back(fleet, taken))
        await until_used_up(budgets)
        await asyncio.sleep(AFTER_S)


async def until_used_up(budgets: list[Presser]) -> None:
    end_s = monotonic() + USED_UP_S
    while not all(used_up(budget) for budget in budgets):
        assert monotonic() < end_s, [budget.asked[-1] for budget in budgets]
        await asyncio.sleep(0.5)


@asynccontextmanager
async def pressing(pressers: Iterable[Presser]) -> AsyncIterator[None]:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as http, asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.go_on(http)) for one in pressers]
        yield
        for task in tasks:
            task.cancel()


async def answered_by(url: str) -> dict[float, float]:
    """Requests that each router has answered well, by when it began to count them: no two began at once."""
    counts: dict[float, float] = {}
    async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
        for _ in range(40):
            with suppress(httpx.TransportError):
                page = (await http.get(f"{url}/metrics", headers={"connection": "close"})).text
                told = {one.name: one.value for one in samples(page) if one.labels.get("outcome") == "ok"}
                if "headrace_requests_created" in told:
                    counts[told["headrace_requests_created"]] = told["headrace_requests_total"]
    return counts


async def the_ledger(fleet: DetachedFleet) -> psutil.Process:
    """That of a router which was killed may still be about to end."""
    async with asyncio.timeout(BACK_S):
        while len(there := fleet.processes(LEDGER)) != 1:
            await asyncio.sleep(0.1)
    return there[0]


async def killed_and_back(fleet: DetachedFleet, victim: psutil.Process) -> float:
    """Seconds until others have its place, and that of a ledger which it had started."""
    began_s = monotonic()
    victim.kill()
    victim.wait(10)
    while not await is_whole(fleet):
        assert monotonic() - began_s < BACK_S, "nobody came in its place"
        await asyncio.sleep(0.5)
    return monotonic() - began_s


async def is_whole(fleet: DetachedFleet) -> bool:
    """Two routers have answered, and there is a ledger."""
    there = len(fleet.processes(ROUTER)), len(fleet.processes(LEDGER))
    return there == (2, 1) and len(await answered_by(fleet.url)) == 2


def hold_minutes(name: str, limit: int, presser: Presser, record: Record) -> None:
    """No minute has more, and nobody is refused at the end of one that has less."""
    unit = "tokens" if name == "tokens" else "requests"
    most, least = most_within_a_minute(presser.asked)[unit], least_before_a_refusal(presser.asked)[unit]
    record(f"{name}: answers by status", dict(Counter(one.status for one in presser.asked)))
    record(f"{name}: limit, most in 60 s, least in the 60 s before a refusal", [limit, most, least])
    assert most <= limit * 1.01
    assert least >= limit * 0.99


def used_up(presser: Presser) -> bool:
    """It was told so last."""
    return "insufficient_quota" in presser.asked[-1].error


def hold_budgets(fleet: DetachedFleet, pressers: dict[str, Presser], record: Record) -> None:
    used = {row["tenant"]: row for row in usage(fleet)}
    of_tokens, of_gpu = pressers["token-budget"], pressers["gpu-budget"]
    assert used_up(of_tokens)
    assert used_up(of_gpu)
    tokens = used["token-budget"]["prompt_tokens"] + used["token-budget"]["output_tokens"]
    answered = sum(one.tokens for one in of_tokens.answered())
    one, broken = of_tokens.answered()[0].tokens, sum(one.status == 0 for one in of_tokens.asked)
    record("tokens: budget, counted, answered", [BUDGET_TOKENS, tokens, answered])
    record("GPU-seconds: budget, counted", [BUDGET_GPU_S, used["gpu-budget"]["gpu_s"]])
    dearest_gpu_s = max(float(cost) for cost in re.findall(r"may take ([\d.e+-]+) more", of_gpu.asked[-1].error))
    record("GPU-seconds: that a request was thought to take at most", dearest_gpu_s)
    record("broken by kills", {name: sum(one.status == 0 for one in each.asked) for name, each in pressers.items()})
    assert answered <= tokens <= BUDGET_TOKENS
    assert tokens > BUDGET_TOKENS - one
    assert answered > tokens - one * (1 + broken)
    assert used["gpu-budget"]["gpu_s"] <= BUDGET_GPU_S + dearest_gpu_s
    assert used["gpu-budget"]["gpu_s"] > BUDGET_GPU_S - dearest_gpu_s


def usage(fleet: DetachedFleet) -> list[dict[str, Any]]:
    done = headrace("usage", "--by", "tenant", "--json", env=fleet.env, timeout_s=60.0)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["usage"]
