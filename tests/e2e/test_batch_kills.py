"""Does a batch on real engines come to its end, each line once, whoever is killed and how often?"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

import openai
import psutil
import pytest
from openai.types import Batch

from tests.e2e.batch_client import EMBEDDINGS, ended, line, output_of, put, said
from tests.e2e.typed import DetachedFleet, detached_fleet

pytestmark = [pytest.mark.prove, pytest.mark.timeout(5400)]

TINY = """
models:
  - name: tiny
    source: tiny
    engine: {dtype: float32, max_model_len: 256, max_num_seqs: 4, kv_cache_memory_bytes: 67108864}
    replicas: {min: 2, max: 2}
router: {port: {port}, replicas: 2}
"""
MINILM = """
models: [{name: minilm, source: minilm}]
router: {port: {port}}
"""
LINES = 400
KILLS = {"routers": 32, "engine": 15, "cluster": 3}
T = TypeVar("T")
PATIENCE_S = 300.0
"""With a batch whose server starts anew."""


@contextmanager
def running(folder: Path, text: str) -> Iterator[DetachedFleet]:
    fleet = detached_fleet(folder, text)
    fleet.start()
    try:
        yield fleet
    finally:
        fleet.stop()
    assert fleet.processes() == []


def client_of(fleet: DetachedFleet) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{fleet.url}/v1", api_key="none", max_retries=0)


def test_embeddings_in_a_batch_are_those_that_come_alone(tmp_path: Path) -> None:
    texts = ["A man eats.", "A woman plays the violin."]
    lines = [
        {"custom_id": text, "method": "POST", "url": EMBEDDINGS, "body": {"model": "minilm", "input": text}}
        for text in texts
    ]
    with running(tmp_path, MINILM) as fleet, client_of(fleet) as client:
        batch = ended(client, put(client, lines, EMBEDDINGS).id)
        assert (batch.status, batch.error_file_id) == ("completed", None)
        for told, text in zip(output_of(client, batch), texts, strict=True):
            alone = client.embeddings.create(model="minilm", input=text, encoding_format="float").data[0].embedding
            assert told["response"]["body"]["data"][0]["embedding"] == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("seed", range(2))
def test_batches_amid_fifty_kills_say_what_an_undisturbed_one_says(
    tmp_path: Path, seed: int, record_property: Callable[[str, object], None]
) -> None:
    """Batches of the same lines follow each other until everybody was killed as often as is wanted."""
    lines = [line(str(number), "tiny", f"def function_{number}", 20 + number % 40) for number in range(LINES)]
    draw = random.Random(seed)
    left = [kind for kind, count in KILLS.items() for _ in range(count)]
    draw.shuffle(left)
    killed: Counter[str] = Counter()
    with running(tmp_path, TINY) as fleet, client_of(fleet) as client:
        calm = told(client, ended(client, put(client, lines).id))
        assert [name for name, _ in calm] == [one["custom_id"] for one in lines]
        began_s, batches = monotonic(), 0
        while left:
            batch, more = killed_until_it_ends(fleet, client, put_in_time(client, lines), left, draw)
            assert (batch.status, batch.error_file_id) == ("completed", None)
            assert told(client, batch) == calm
            batches, killed = batches + 1, killed + more
            print(f"{monotonic() - began_s:.0f} s: {batches} batches, killed {dict(killed)}", flush=True)
    record_property("kills", dict(killed))
    record_property("batches", batches)
    record_property("lines", LINES)
    record_property("seconds", monotonic() - began_s)
    assert killed == KILLS


def told(client: openai.OpenAI, batch: Batch) -> list[tuple[str, str]]:
    """What the output file has: each line's id, and its text."""
    return in_time(lambda: [(one["custom_id"], said(one)) for one in output_of(client, batch)])


def killed_until_it_ends(
    fleet: DetachedFleet, client: openai.OpenAI, name: str, left: list[str], draw: random.Random
) -> tuple[Batch, Counter[str]]:
    """Kills who is next each time that lines have ended since the last time; takes them from `left`."""
    killed: Counter[str] = Counter()
    while left and goes_on(client, name):
        sleep(draw.uniform(0, 1.5))
        kind = left.pop()
        kill(fleet, kind, draw)
        killed[kind] += 1
        print(f"killed {dict(killed)}, {len(left)} left", flush=True)
    return ended(client, name, PATIENCE_S), killed


def goes_on(client: openai.OpenAI, name: str) -> bool:
    """Returns once lines have ended since, or all of it."""
    before, end_s = shape(client, name), monotonic() + PATIENCE_S
    while (now := shape(client, name)) == before and now[0] != "completed":
        assert monotonic() < end_s, f"{name} stands at {now}"
        sleep(0.05)
    return now[0] != "completed"


def shape(client: openai.OpenAI, name: str) -> tuple[str, int]:
    """Its state, and how many lines have ended."""
    batch = in_time(lambda: client.batches.retrieve(name))
    counts = batch.request_counts
    return batch.status, 0 if counts is None else counts.completed + counts.failed


def put_in_time(client: openai.OpenAI, lines: list[dict[str, Any]]) -> str:
    return in_time(lambda: put(client, lines).id)


def in_time(ask: Callable[[], T]) -> T:
    """Asked again while nobody listens, or who listens can't answer yet."""
    end_s = monotonic() + PATIENCE_S
    while True:
        try:
            return ask()
        except (openai.APIConnectionError, openai.InternalServerError):
            assert monotonic() < end_s
            sleep(0.2)


def kill(fleet: DetachedFleet, kind: str, draw: random.Random) -> None:
    """All routers; a replica of the engine or a process below one; or the whole run, which is then started anew."""
    if kind == "cluster":
        everybody = fleet.processes()
        end(everybody)
        psutil.wait_procs(everybody, timeout=60)
        fleet.start()
    elif kind == "routers":
        end(fleet.processes("ServeReplica:headrace:router"))
    else:
        while not (replicas := fleet.processes("ServeReplica:headrace:engine-tiny")):
            sleep(0.1)  # the last ones are being replaced
        replica = draw.choice(replicas)
        end([draw.choice([replica, *replica.children(recursive=True)])])


def end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
