"""Does a reader get the text that it would have got anyway when the engine of its stream is killed?

Streams are greedy and in float32, so that an undisturbed run says what must come.
"""

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from time import monotonic
from typing import Any

import httpx
import psutil
import pytest

from headrace.observe import samples
from tests.e2e.typed import PATIENCE_S, DetachedFleet, detached_fleet

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1500)]

REPLICAS, KILLS, ROUNDS = 4, 3, 7
"""In each round all replicas but one are killed at once, under streams on all of them."""

FLEET = """
models:
  - name: tiny
    source: tiny
    engine: {dtype: float32, max_model_len: 1024, max_num_seqs: 48, kv_cache_memory_bytes: 67108864}
    replicas: {min: 4, max: 4}
router: {port: {port}}
"""

PROMPTS = (
    "A class is", "The import statement", "naïve 🚰 日本 «é»", "A list", "Raises ValueError when", "def __init__(self",
    "«Voilà»", "The module provides", "Return a string", "A file object", "名前 is", "Exceptions are", "ß", "A tuple",
    "When the", "Ünïcödé",
)  # fmt: skip
MANNERS: tuple[dict[str, Any], ...] = (
    {},
    {"stop": ["never this at all", "日本語 🚰"], "min_tokens": 30},
    {"stop": ["\n\n\n", "ééé"], "include_stop_str_in_output": True, "repetition_penalty": 1.1},
)
BIASED = "é日本🚰«»"
"""Every other stream says much of this: characters of which a token is a part."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """A whole stream, to its reader."""

    text: str
    finish: str
    stop: str | None
    usage: tuple[int, int]
    """Prompt and completion tokens."""


@dataclass
class Readers:
    """Clients that each ask for one stream again and again, while they may."""

    url: str
    bodies: list[dict[str, Any]]
    right: list[Said]
    go: asyncio.Event = field(default_factory=asyncio.Event)
    busy: int = 0
    read: int = 0

    async def read_on(self, place: int) -> None:
        async with connected(self.url) as client:
            while True:
                await self.go.wait()
                self.busy += 1
                assert await read(client, self.bodies[place]) == self.right[place], self.bodies[place]
                self.busy -= 1
                self.read += 1


def connected(url: str) -> httpx.AsyncClient:
    """A client with connections of its own."""
    return httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False)


async def read(client: httpx.AsyncClient, body: dict[str, Any]) -> Said:
    """Raises AssertionError for anything but a stream that ends well."""
    text, ends, usage, last = "", [], {}, ""
    async with client.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            last = line or last
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            assert "error" not in event, event
            for choice in event["choices"]:
                text += choice["text"]
                if choice["finish_reason"] is not None:
                    ends.append((choice["finish_reason"], choice["stop_reason"]))
            usage = event.get("usage") or usage
    assert last == "data: [DONE]"
    ((finish, stop),) = ends
    return Said(text=text, finish=finish, stop=stop, usage=(usage["prompt_tokens"], usage["completion_tokens"]))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DetachedFleet]:
    fleet = detached_fleet(tmp_path_factory.mktemp("broken"), FLEET)
    fleet.start()
    yield fleet
    fleet.stop()


def test_streams_outlive_their_engines(fleet: DetachedFleet, record_property: Callable[[str, object], None]) -> None:
    found = asyncio.run(_break(fleet))
    for name, value in found.items():
        record_property(name, value)
    assert found["engines killed"] >= 20
    assert found["times that a stream went on at another"] >= 200


async def _break(fleet: DetachedFleet) -> dict[str, float]:
    async with connected(fleet.url) as client:
        await _until_whole(client, without=set())
        bodies = _bodies(await _bias(client))
        right = await asyncio.gather(*[read(client, body) for body in bodies])
        assert any(not said.text.isascii() for said in right)
        readers = Readers(fleet.url, bodies, right)
        async with asyncio.TaskGroup() as group:
            reading = [group.create_task(readers.read_on(place)) for place in range(len(bodies))]
            waits_s = [await _round(fleet, client, readers) for _ in range(ROUNDS)]
            for task in reading:
                task.cancel()
        return {
            "engines killed": ROUNDS * KILLS,
            "streams": readers.read,
            "times that a stream went on at another": sum((await _samples(client, "continuations_total")).values()),
            "times that a request began again": sum((await _samples(client, "retries_total")).values()),
            "most seconds until all engines were back": round(max(waits_s), 1),
        }


async def _round(fleet: DetachedFleet, client: httpx.AsyncClient, readers: Readers) -> float:
    """Kills engines that run streams, and waits for the streams, then for the engines; seconds for the latter."""
    running: dict[str, float] = {}
    readers.go.set()
    while sum(running.values()) < 0.8 * len(readers.bodies):
        running = await _samples(client, "replica_running_requests")
    for victim in _oldest(fleet)[:KILLS]:
        victim.send_signal(signal.SIGKILL)
    readers.go.clear()
    began_s = monotonic()
    while readers.busy:
        await asyncio.sleep(0.05)
    await _until_whole(client, without=set(running))
    return monotonic() - began_s


def _oldest(fleet: DetachedFleet) -> list[psutil.Process]:
    """The engines' replicas by their age."""
    replicas = fleet.processes("ServeReplica:headrace:engine-tiny")
    return sorted(replicas, key=lambda replica: replica.create_time())


def _bodies(bias: dict[str, int]) -> list[dict[str, Any]]:
    common = {"model": "tiny", "stream": True, "stream_options": {"include_usage": True}, "temperature": 0}
    length = {"max_tokens": 400, "ignore_eos": True}
    return [
        common | length | manner | {"prompt": prompt} | ({"logit_bias": bias} if place % 2 else {})
        for place, (prompt, manner) in enumerate(product(PROMPTS, MANNERS))
    ]


async def _bias(client: httpx.AsyncClient) -> dict[str, int]:
    asked = {"model": "tiny", "prompt": BIASED, "add_special_tokens": False}
    ids = (await client.post("/tokenize", json=asked)).raise_for_status().json()["tokens"]
    return {str(token_id): 5 for token_id in ids}


async def _until_whole(client: httpx.AsyncClient, without: set[str]) -> None:
    """Waits until the router has all engines, and not those that were there before, but for the survivors."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            there = (await _samples(client, "replica_running_requests")).keys()
            if len(there) == REPLICAS and len(there & without) <= REPLICAS - KILLS:
                return
            await asyncio.sleep(0.2)


async def _samples(client: httpx.AsyncClient, name: str) -> dict[str, float]:
    """By replica, or the one of the model."""
    text = (await client.get("/metrics")).text
    found = (sample for sample in samples(text) if sample.name == f"headrace_{name}")
    return {sample.labels.get("replica", ""): sample.value for sample in found}
