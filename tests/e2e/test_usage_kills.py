"""All routers of a fleet are killed at once: is everything that was answered in the usage, and counted once?"""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.typed import DetachedFleet, detached_fleet, headrace

pytestmark = [pytest.mark.prove, pytest.mark.timeout(900)]

FLEET = """
models:
  - name: tiny
    source: tiny
    engine: {dtype: float32, max_model_len: 512, max_num_seqs: 8, kv_cache_memory_bytes: 67108864}
router: {port: {port}, replicas: 2}
"""
ROUTERS = 2
BACK_S = 150.0
"""How soon routers are there again."""
TOLD_S = 20.0
"""How soon all is in the store, however busy it is with what a router takes over."""
AMOUNTS = ("requests", "prompt_tokens", "output_tokens")
ROUNDS = ((40, 12), (40, 20))
"""Requests, and tokens of each, before a kill with nothing open."""
MANY = 120


@dataclass(frozen=True)
class Keyed:
    """A fleet that serves, and a key of it."""

    fleet: DetachedFleet
    key: str

    def routers(self) -> list[psutil.Process]:
        return self.fleet.processes("ServeReplica:headrace:router")

    def kill_routers(self) -> None:
        """Both in the same moment."""
        dying = self.routers()
        assert len(dying) == ROUTERS
        for router in dying:
            router.send_signal(signal.SIGKILL)
        psutil.wait_procs(dying, timeout=10)

    def until_back(self) -> None:
        end_s = monotonic() + BACK_S
        while len(self.routers()) < ROUTERS or not self._ready():
            assert monotonic() < end_s, "the routers did not come back"
            sleep(0.1)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.fleet.url}/ready", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def used(self) -> Counter[str]:
        done = headrace("usage", "--by", "tenant", "--json", env=self.fleet.env, timeout_s=60.0)
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)["usage"]
        assert row["tenant"] == "alpha"
        return Counter({name: row[name] for name in AMOUNTS})

    async def ask(self, http: httpx.AsyncClient, tokens: int) -> Counter[str] | None:
        """What an answer says that it used; None: it did not come to its end. On a connection of its own."""
        body: dict[str, Any] = {"model": "tiny", "prompt": "A class is", "max_tokens": tokens, "ignore_eos": True}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        headers = {"authorization": f"Bearer {self.key}", "connection": "close"}
        try:
            answer = await http.post(f"{self.fleet.url}/v1/completions", json=body, headers=headers)
        except httpx.TransportError:
            return None
        *events, done, _ = answer.text.split("\n\n")
        if answer.status_code != 200 or done != "data: [DONE]":
            return None
        usage = json.loads(events[-1].removeprefix("data: "))["usage"]
        said = {"prompt_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}
        return Counter({"requests": 1, **said})

    async def ask_all(self, tokens: list[int], until: Callable[[int], None] | None = None) -> list[Counter[str] | None]:
        """All at once; `until` is told after each end how many have ended."""
        ended = 0
        async with httpx.AsyncClient(timeout=120, trust_env=False) as http:
            waiting = [asyncio.ensure_future(self.ask(http, count)) for count in tokens]
            for one in asyncio.as_completed(waiting):
                ended += await one is not None
                if until is not None:
                    until(ended)
            return [one.result() for one in waiting]


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    fleet = detached_fleet(tmp_path_factory.mktemp("usage"), FLEET)
    made = headrace("keys", "create", "--tenant", "alpha", env=fleet.env, timeout_s=60.0)
    assert made.returncode == 0, made.stderr
    fleet.start()
    yield Keyed(fleet, made.stdout.strip())
    fleet.stop()
    assert fleet.processes() == []


def test_usage_is_whole_after_both_routers_were_killed_and_killed_again(
    keyed: Keyed, record_property: Callable[[str, object], None]
) -> None:
    answered: Counter[str] = Counter()
    for count, tokens in ROUNDS:
        keyed.until_back()
        ends = asyncio.run(keyed.ask_all([tokens] * count))
        keyed.kill_routers()
        assert None not in ends
        for one in ends:
            answered += one or Counter()
        end_s = monotonic() + TOLD_S
        while keyed.used() != answered and monotonic() < end_s:
            pass
        assert keyed.used() == answered
    record_property("answered and counted", dict(answered))

    keyed.until_back()
    killed = False

    def kill_in_the_midst(ended: int) -> None:
        nonlocal killed
        if ended == MANY // 3 and not killed:
            killed = True
            keyed.kill_routers()

    ends = asyncio.run(keyed.ask_all([5 + number for number in range(MANY)], kill_in_the_midst))
    whole = [one for one in ends if one is not None]
    assert MANY // 3 <= len(whole) < MANY
    least = answered + sum(whole, Counter())
    keyed.until_back()
    now = keyed.used()
    record_property("in the midst: sent, answered, counted", [MANY, len(whole), now["requests"] - answered["requests"]])
    assert least <= now
    assert now["requests"] <= answered["requests"] + MANY
    assert now["output_tokens"] <= answered["output_tokens"] + sum(5 + number for number in range(MANY))
