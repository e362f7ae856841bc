"""Does a real engine have anything left of clients that leave, ask wrongly, or come in great number?

The router and the engine are processes of their own; what either keeps would show as memory.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import psutil
import pytest
from scipy.stats import linregress

from tests.deployments import forwarded
from tests.deployments.leavers import KINDS, leave
from tests.deployments.malformed_client import Heard, send_malformed
from tests.deployments.two_servers import Pair, Server, wait_for

pytestmark = pytest.mark.timeout(1800)

GONE_S = 1.0
"""Within which an engine has nothing left of clients that left."""
LEAVERS = 200
MALFORMED = 5_000
WARM_UP_S = 150.0
CHURN_S = 600.0
LOOK_S = 5.0
MOST_MB_PER_MINUTE = 1.0
CLIENTS = 6
Record = Callable[[str, object], None]


def port_of(server: Server) -> int:
    port = server.client.base_url.port
    assert port is not None
    return port


def busy(server: Server) -> bool:
    """Whether an engine has a request. Its frame after a step tells the state before it: the next one, idle, counts."""
    return any(server.metric(f"replica_{kind}_requests") for kind in ("running", "waiting"))


def is_free(server: Server, within_s: float = GONE_S) -> None:
    wait_for(lambda: not busy(server), within_s)
    wait_for(lambda: not server.metric("open_requests") and not server.metric("queued_requests"), within_s)


@pytest.mark.slow
def test_clients_that_leave_at_any_moment_leave_nothing_in_the_engine(pair: Pair) -> None:
    chance = random.Random(0)
    for case in list(KINDS.values()) * 2:
        leave(port_of(pair.ours), case, chance)
    is_free(pair.ours)


@pytest.mark.prove
@pytest.mark.parametrize("kind", KINDS)
def test_two_hundred_of_each_kind_leave_nothing_in_the_engine(pair: Pair, kind: str) -> None:
    chance = random.Random(kind)
    for _ in range(LEAVERS):
        leave(port_of(pair.ours), KINDS[kind], chance)
    is_free(pair.ours)


@pytest.mark.prove
def test_malformed_requests_leave_nothing_in_the_engine(pair: Pair, record_property: Record) -> None:
    heard = Heard()
    asyncio.run(send_malformed(port_of(pair.ours), random.Random(7), MALFORMED, heard, patience_s=200.0))
    wrong = [(said, sent) for said, sent in heard.wrong if is_ours(said)]
    assert not wrong, wrong[0]
    for status in sorted({status for _, status in heard.statuses}):
        record_property(f"status_{status}", sum(n for (_, told), n in heard.statuses.items() if told == status))
    record_property("errors_of_vllm_s_own_application", len(heard.wrong))
    is_free(pair.ours)
    assert pair.ours.ask(*forwarded.text()).status == 200


def is_ours(said: str) -> bool:
    """Silence, and what the router says when it has no answer; vLLM's own errors have numbers for codes."""
    return said == "silence" or "engine_error" in said or said.endswith("Internal Server Error")


def processes(server: Server) -> dict[str, psutil.Process]:
    """The engine replica, its core, and the router."""
    found = {"replica": server.process}
    for child in server.process.children():
        words = " ".join(child.cmdline())
        if "real_router" in words:
            found["router"] = child
        elif "resource_tracker" not in words:
            found["core"] = child
    assert found.keys() == {"replica", "router", "core"}
    return found


@pytest.mark.prove
def test_memory_does_not_grow_in_ten_minutes_of_all_kinds_of_requests(pair: Pair, record_property: Record) -> None:
    counts: Counter[str] = Counter()
    asyncio.run(churn(pair.ours, WARM_UP_S, counts))
    owners = processes(pair.ours)
    sizes: dict[str, list[tuple[float, int]]] = {name: [] for name in owners}

    def look() -> None:
        for name, owner in owners.items():
            sizes[name].append((time.monotonic(), owner.memory_full_info().uss))

    asyncio.run(churn(pair.ours, CHURN_S, counts, look))
    for what, count in sorted(counts.items()):
        record_property(what, count)
    grows = {}
    for name, seen in sizes.items():
        fit = linregress([at_s / 60 for at_s, _ in seen], [size / 1e6 for _, size in seen])
        grows[name] = fit.slope
        record_property(f"{name}_mb_per_minute", f"{fit.slope:.3f} +- {1.96 * fit.stderr:.3f}")
        record_property(f"{name}_mb", f"{seen[0][1] / 1e6:.0f}..{seen[-1][1] / 1e6:.0f}")
    assert max(grows.values()) < MOST_MB_PER_MINUTE, grows
    is_free(pair.ours)


async def churn(
    server: Server, duration_s: float, counts: Counter[str], look: Callable[[], None] = lambda: None
) -> None:
    """Keeps CLIENTS busy with all kinds of requests, wrong ones, and leaving; counts how often each was sent."""
    end_s = time.monotonic() + duration_s
    chance = random.Random(5)
    requests = mixture(chance)

    async def client(http: httpx.AsyncClient) -> None:
        while time.monotonic() < end_s:
            what, case = next(requests)
            counts[what] += 1
            if what == "left":
                await asyncio.to_thread(leave, port_of(server), case, chance)
            elif what == "malformed":
                await send_malformed(port_of(server), chance, 1, Heard(), 2.0)
            else:
                counts["errors_of_vllm_s_own_application"] += not await post(http, case)

    async def watch() -> None:
        while time.monotonic() < end_s:
            look()
            await asyncio.sleep(LOOK_S)

    async with httpx.AsyncClient(base_url=server.client.base_url, timeout=120.0, trust_env=False) as http:
        await asyncio.gather(watch(), *[client(http) for _ in range(CLIENTS)])


def mixture(chance: random.Random) -> Iterator[tuple[str, forwarded.Case]]:
    """Without an end: what a client does, and with which request."""
    cases = {
        "answered": [*forwarded.ANSWERED.values()],
        "plain": [forwarded.chat(stream=stream, temperature=1, max_tokens=40) for stream in (False, True)],
        "refused": [*forwarded.REFUSED.values()],
        "left": [*KINDS.values()],
        "malformed": [forwarded.text()],  # makes up its own
    }
    while True:
        (what,) = chance.choices([*cases], [4, 4, 2, 3, 1])
        yield what, chance.choice(cases[what])


async def post(http: httpx.AsyncClient, case: forwarded.Case) -> bool:
    """True unless vLLM's own application failed, as it does when the model's text leaves its grammar."""
    path, body = case
    answer = await (http.post(path, content=body) if isinstance(body, bytes) else http.post(path, json=body))
    assert answer.status_code < 500 or not is_ours(answer.text), answer.text
    return answer.status_code < 500
