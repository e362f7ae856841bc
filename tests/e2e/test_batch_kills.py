"""Does a batch on real engines come to its end, each line once, when its router is killed again and again?"""

import os
import signal
from collections.abc import Callable, Iterator
from time import monotonic, sleep

import openai
import pytest

from tests.e2e.batch_client import EMBEDDINGS, ended, line, output_of, put, said
from tests.e2e.typed import DetachedFleet, detached_fleet

pytestmark = [pytest.mark.prove, pytest.mark.timeout(900)]

FLEET = """
models:
  - name: tiny
    source: tiny
    engine: {dtype: float32, max_model_len: 256, max_num_seqs: 4, kv_cache_memory_bytes: 67108864}
  - name: minilm
    source: minilm
router: {port: {port}}
"""
LINES = 400
KILLS = 3


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DetachedFleet]:
    detached = detached_fleet(tmp_path_factory.mktemp("fleet"), FLEET)
    detached.start()
    yield detached
    detached.stop()
    assert detached.processes() == []


def client_of(fleet: DetachedFleet) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{fleet.url}/v1", api_key="none", max_retries=0)


def test_embeddings_in_a_batch_are_those_that_come_alone(fleet: DetachedFleet) -> None:
    client, texts = client_of(fleet), ["A man eats.", "A woman plays the violin."]
    lines = [
        {"custom_id": text, "method": "POST", "url": EMBEDDINGS, "body": {"model": "minilm", "input": text}}
        for text in texts
    ]
    batch = ended(client, put(client, lines, EMBEDDINGS).id)
    assert (batch.status, batch.error_file_id) == ("completed", None)
    for told, text in zip(output_of(client, batch), texts, strict=True):
        alone = client.embeddings.create(model="minilm", input=text, encoding_format="float").data[0].embedding
        assert told["response"]["body"]["data"][0]["embedding"] == pytest.approx(alone, abs=1e-5)


def test_a_batch_whose_router_is_killed_says_what_an_undisturbed_one_says(
    fleet: DetachedFleet, record_property: Callable[[str, object], None]
) -> None:
    client = client_of(fleet)
    lines = [line(str(number), "tiny", f"def function_{number}", 20 + number % 9) for number in range(LINES)]
    calm = ended(client, put(client, lines).id)
    began_s, name, killed = monotonic(), put(client, lines).id, 0
    while killed < KILLS and progress(client, name) < 0.9:
        wait_until_further(client, name)
        for process in fleet.processes("headrace:router"):
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
    batch = ended(client, name)
    record_property("kills", killed)
    record_property("lines", LINES)
    record_property("seconds", monotonic() - began_s)
    assert (batch.status, batch.error_file_id) == ("completed", None)
    assert killed
    told, undisturbed = output_of(client, batch), output_of(client, calm)
    assert [one["custom_id"] for one in told] == [one["custom_id"] for one in lines]
    assert [said(one) for one in told] == [said(one) for one in undisturbed]


def progress(client: openai.OpenAI, name: str) -> float:
    """Share of its lines that have ended."""
    while True:
        try:
            counts = client.batches.retrieve(name).request_counts
        except (openai.APIConnectionError, openai.InternalServerError):
            sleep(0.2)  # no router listens
            continue
        return 0.0 if counts is None or not counts.total else (counts.completed + counts.failed) / counts.total


def wait_until_further(client: openai.OpenAI, name: str) -> None:
    """Returns once lines have ended since."""
    before, end_s = progress(client, name), monotonic() + 120
    while progress(client, name) <= before:
        assert monotonic() < end_s
        sleep(0.1)
