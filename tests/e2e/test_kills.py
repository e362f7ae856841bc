"""Each kind of process is killed under load: every request ends, well or clearly, and service comes back by itself.

Clients ask greedily and in float32, so that whatever ends well must have said the same as before.
"""

import asyncio
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import httpx
import psutil
import pytest

from headrace.observe import samples
from tests.e2e.typed import DetachedFleet, detached_fleet, title

pytestmark = [pytest.mark.prove, pytest.mark.timeout(900)]

END_S = 30.0
"""How soon a run is gone, all of it, when its Ray is."""
WAIT_S = 60.0
"""What a client waits for an answer."""

FLEET = """
models:
  - name: tiny
    source: tiny
    engine: {dtype: float32, max_model_len: 1024, max_num_seqs: 4, kv_cache_memory_bytes: 67108864}
    replicas: {min: 2, max: 2}
router: {port: {port}}
"""

BODY = {"model": "tiny", "prompt": "A class is", "max_tokens": 200, "ignore_eos": True, "temperature": 0}
KINDS: dict[str, dict[str, Any]] = {
    "whole": {},
    "stream": {"stream": True},
    "forwarded": {"logprobs": 1},
    "forwarded stream": {"logprobs": 1, "stream": True},
}
"""Answers of the router's own making, and of vLLM's application: they fail in different ways."""


@dataclass(frozen=True)
class Running:
    """A fleet that serves, and its processes."""

    fleet: DetachedFleet

    @property
    def url(self) -> str:
        return self.fleet.url

    def processes(self, words: str = "") -> list[psutil.Process]:
        return self.fleet.processes(words)

    def replica(self) -> psutil.Process:
        """One of the engine's."""
        return self.processes("ServeReplica:headrace:engine-tiny")[0]

    def core(self) -> psutil.Process:
        """By descent, since vLLM's titles don't always take: the replica's child that has a child."""
        return next(child for child in self.replica().children() if child.children())

    def worker(self) -> psutil.Process:
        return self.core().children()[0]

    def router(self) -> psutil.Process:
        return self.processes("ServeReplica:headrace:router")[0]

    def controller(self) -> psutil.Process:
        return self.processes("ServeController")[0]

    def is_whole(self) -> bool:
        """Whether Serve has its controller, and the router two engines."""
        try:
            text = httpx.get(f"{self.url}/metrics", timeout=WAIT_S, trust_env=False).text
        except httpx.TransportError:
            return False
        engines = sum(sample.name == "headrace_replica_running_requests" for sample in samples(text))
        return engines == 2 and bool(self.processes("ServeController"))

    def assert_gone(self) -> None:
        """Nothing of it is left, END_S from now at most."""
        end_s = monotonic() + END_S
        while self.processes():
            assert monotonic() < end_s, [title(process) for process in self.processes()]
        with socket.socket() as door:
            assert door.connect_ex(("127.0.0.1", self.fleet.port)) != 0


@dataclass
class Load:
    """Clients of every kind that ask again and again, and how each of their requests ended."""

    url: str
    right: str
    ends: list[tuple[float, str]] = field(default_factory=list)
    """When a request ended, and how: `right`, `refused` (an HTTP error), `error event`, `closed`, or what was wrong."""

    async def client(self, kind: str) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=WAIT_S, trust_env=False) as client:
            while True:
                end = await _ask(client, kind, self.right)
                self.ends.append((monotonic(), end))
                if end in ("refused", "closed"):
                    await asyncio.sleep(0.1)

    def since(self, began_s: float) -> Counter[str]:
        return Counter(end for at_s, end in self.ends if at_s >= began_s)

    async def until(self, happened: Callable[[], bool], limit_s: float, what: str) -> None:
        end_s = monotonic() + limit_s
        while not await asyncio.to_thread(happened):
            assert monotonic() < end_s, f"{what} took longer than {limit_s} s; ends: {Counter(e for _, e in self.ends)}"
            await asyncio.sleep(0.05)


async def _ask(client: httpx.AsyncClient, kind: str, right: str) -> str:
    """How one request ended."""
    body = BODY | KINDS[kind]
    try:
        async with client.stream("POST", "/v1/completions", json=body) as response:
            said = (await response.aread()).decode()
    except httpx.TimeoutException:
        return f"{kind}: no answer in {WAIT_S} s"
    except httpx.TransportError:
        return "closed"
    if response.status_code != 200:
        return "refused" if _is_error(said) else f"{kind}: {response.status_code} {said}"
    text, failed = _text(said) if "stream" in body else (json.loads(said)["choices"][0]["text"], False)
    if failed:
        return "error event" if right.startswith(text) else f"{kind}: wrong before the error: {text}"
    return "right" if text == right else f"{kind}: wrong: {text}"


def _is_error(said: str) -> bool:
    """In OpenAI's shape."""
    error = json.loads(said)["error"]
    return bool(error["message"]) and {"type", "param", "code"} <= error.keys()


def _text(said: str) -> tuple[str, bool]:
    """What a stream said, and whether it ended with an error event; one of both it must."""
    events = [line.removeprefix("data: ") for line in said.splitlines() if line.startswith("data: ")]
    ended, text = events[-1] == "[DONE]", ""
    for event in events[: -1 if ended else None]:
        chunk = json.loads(event)
        if "error" in chunk:
            assert _is_error(event)
            return text, True
        text += "".join(choice["text"] for choice in chunk["choices"])
    assert ended, f"the stream just ends: {said[-200:]}"
    return text, False


@asynccontextmanager
async def load(url: str) -> AsyncIterator[Load]:
    """Two clients of each kind, at work: more than the slots of one replica."""
    async with httpx.AsyncClient(base_url=url, timeout=WAIT_S, trust_env=False) as client:
        answer = await client.post("/v1/completions", json=BODY)
    text: str = answer.raise_for_status().json()["choices"][0]["text"]
    assert len(text) > 200
    load = Load(url, text)
    clients = [asyncio.ensure_future(load.client(kind)) for kind in KINDS for _ in range(2)]
    try:
        await load.until(lambda: load.since(0.0)["right"] >= 3 * len(clients), WAIT_S, "a start")
        assert load.since(0.0).keys() == {"right"}
        yield load
        for client in clients:
            assert not client.done(), client.result()
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(detached_fleet(tmp_path_factory.mktemp("kills"), FLEET))
    running.fleet.start()
    yield running
    running.fleet.stop()
    running.assert_gone()


CLEAN = {"right", "refused", "error event"}
KILLS = [
    # and how requests may end meanwhile
    ("worker", signal.SIGKILL, CLEAN),
    ("core", signal.SIGKILL, CLEAN),
    ("core", signal.SIGTERM, CLEAN),
    ("core", signal.SIGSTOP, CLEAN),
    ("worker", signal.SIGSTOP, CLEAN),
    ("replica", signal.SIGKILL, CLEAN),
    ("router", signal.SIGKILL, CLEAN | {"closed"}),
    ("controller", signal.SIGKILL, {"right"}),
]
BACK_S = 150.0
"""How soon everything that was killed is there again; an engine of this size starts in about 20 s on two free cores."""


@pytest.mark.parametrize(("victim", "blow", "ends"), KILLS, ids=[f"{blow.name} {victim}" for victim, blow, _ in KILLS])
def test_a_kill_under_load_is_a_clear_end_at_worst_and_service_comes_back(
    fleet: Running,
    victim: str,
    blow: signal.Signals,
    ends: set[str],
    record_property: Callable[[str, object], None],
) -> None:
    found = asyncio.run(_kill(fleet, victim, blow))
    counts: Counter[str] = found.pop("ends")
    for name, value in found.items():
        record_property(f"{blow.name} {victim}: {name}", value)
    record_property(f"{blow.name} {victim}: requests", ", ".join(f"{n} {end}" for end, n in sorted(counts.items())))
    assert counts.keys() <= ends


async def _kill(fleet: Running, victim: str, blow: signal.Signals) -> dict[str, Any]:
    async with load(fleet.url) as clients:
        dying: psutil.Process = getattr(fleet, victim)()
        family = _family(fleet, dying)
        began_s = monotonic()
        dying.send_signal(blow)
        await clients.until(lambda: not any(map(_lives, family)), BACK_S, "the end of its family")
        gone_s = monotonic() - began_s
        await clients.until(lambda: clients.since(began_s + gone_s)["right"] >= 1, BACK_S, "the next right answer")
        answered_s = min(at_s for at_s, end in clients.ends if end == "right" and at_s > began_s) - began_s
        if len(family) > 1:  # until the router knows of it, it counts the lost one too
            await clients.until(lambda: not fleet.is_whole(), BACK_S, "word of its end")
        known_s = monotonic() - began_s
        await clients.until(fleet.is_whole, BACK_S, "full strength")
        back_s = monotonic() - began_s
        before = clients.since(0.0)["right"]
        await clients.until(lambda: clients.since(0.0)["right"] >= before + 16, WAIT_S, "a round of right answers")
        return {
            "its processes gone, s": round(gone_s, 1),
            "first right answer, s": round(answered_s, 1),
            "known to the router, s": round(known_s, 1),
            "all back, s": round(back_s, 1),
            "ends": clients.since(began_s),
        }


def _family(fleet: Running, dying: psutil.Process) -> list[psutil.Process]:
    """What must end with it: of an engine's process the replica and all below it."""
    for replica in fleet.processes("ServeReplica:headrace:engine-tiny"):
        whole = [replica, *replica.children(recursive=True)]
        if dying in whole:
            return whole
    return [dying]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("victim", ["gcs_server", "raylet/raylet"])
def test_when_the_head_is_killed_all_ends_clearly_and_the_next_start_serves(fleet: Running, victim: str) -> None:
    """One machine has one head, and nothing outlives it."""

    async def kill() -> Counter[str]:
        async with load(fleet.url) as clients:
            began_s = monotonic()
            os.kill(next(one.pid for one in fleet.processes(victim)), signal.SIGKILL)
            await clients.until(lambda: not fleet.processes(), END_S, "the end of everything")
            return clients.since(began_s)

    assert asyncio.run(kill()).keys() <= CLEAN | {"closed"}
    fleet.assert_gone()
    fleet.fleet.start()  # it returns when one of the two engines serves
    end_s = monotonic() + BACK_S
    while not fleet.is_whole():
        assert monotonic() < end_s
