"""One fleet, deployed as a user does it, through its day: right answers, more load, a killed replica."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import httpx
import openai
import psutil
import pytest

from headrace.observe import samples
from tests.e2e.batch_client import ended, line, output_of, put, said
from tests.e2e.typed import DetachedFleet, detached_fleet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]

FLEET = """
models:
  - name: smollm2
    source: smollm2
    engine: {max_model_len: 2048, max_num_seqs: 8}
  - name: tiny
    source: tiny
    engine: {dtype: float32, max_model_len: 256, max_num_seqs: 4, kv_cache_memory_bytes: 67108864}
    replicas: {min: 1, max: 2}
  - name: tiny-on-two
    source: tiny
    tensor_parallel: 2
    engine: {dtype: float32, max_model_len: 256, max_num_seqs: 4, kv_cache_memory_bytes: 67108864}
router: {port: {port}}
scaling: {hold_s: 20}
"""


@dataclass(frozen=True)
class Running:
    """A fleet that serves."""

    fleet: DetachedFleet

    @property
    def url(self) -> str:
        return self.fleet.url

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    def listening(self) -> set[tuple[str, int]]:
        """Address and port of each of its sockets that take connections."""
        connections = [one for process in self.fleet.processes() for one in process.net_connections("tcp")]
        return {(one.laddr.ip, one.laddr.port) for one in connections if one.status == psutil.CONN_LISTEN}

    def gauge(self, name: str, **labels: str) -> list[float]:
        """Values of a metric, one for each label set that holds `labels`."""
        text = httpx.get(f"{self.url}/metrics").raise_for_status().text
        return [
            sample.value for sample in samples(text) if sample.name == name and labels.items() <= sample.labels.items()
        ]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    detached = detached_fleet(tmp_path_factory.mktemp("fleet"), FLEET)
    detached.start()
    assert detached.processes()
    yield Running(detached)
    detached.stop()
    assert detached.processes() == []


def test_the_answer_is_right_whole_and_streamed(fleet: Running) -> None:
    client = fleet.client()
    whole = client.chat.completions.create(model="smollm2", messages=QUESTION, temperature=0, max_tokens=24)
    assert "Paris" in (whole.choices[0].message.content or "")
    stream = client.chat.completions.create(
        model="smollm2", messages=QUESTION, temperature=0, max_tokens=24, stream=True
    )
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "Paris" in streamed


def test_what_the_router_leaves_to_vllm_s_own_application_comes_through_the_link_too(fleet: Running) -> None:
    answer = fleet.client().chat.completions.create(
        model="smollm2", messages=QUESTION, temperature=0, max_tokens=8, logprobs=True
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].logprobs is not None
    assert answer.usage is not None
    assert len(answer.choices[0].logprobs.content or ()) == answer.usage.completion_tokens


def test_a_batch_says_what_chats_say(fleet: Running) -> None:
    client = fleet.client()
    asked = [f"{word} is" for word in ("A class", "A module", "The def statement", "An expression")]
    batch = put(client, [line(text, "tiny", text) for text in asked])
    batch = ended(client, batch.id)
    assert (batch.status, batch.error_file_id) == ("completed", None)
    told = {line["custom_id"]: said(line) for line in output_of(client, batch)}
    for text in asked:
        answer = client.chat.completions.create(**line(text, "tiny", text)["body"])
        assert told[text] == answer.choices[0].message.content


def test_an_answer_without_max_tokens_ends_with_the_context(fleet: Running) -> None:
    answer = fleet.client().chat.completions.create(model="tiny", messages=QUESTION, temperature=0)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 256


def test_every_engine_was_verified_against_its_reference(fleet: Running) -> None:
    assert fleet.gauge("headrace_replica_verified") == [1.0, 1.0, 1.0]


def test_tensor_parallel_two_says_the_same_as_one(fleet: Running) -> None:
    client = fleet.client()
    for prompt in ("The def statement", "A class is", "Modules and packages: " * 8):
        one, two = (
            client.completions.create(model=model, prompt=prompt, max_tokens=48, temperature=0).choices[0].text
            for model in ("tiny", "tiny-on-two")
        )
        assert one == two
        assert len(one) > 48
    assert (_workers(fleet, "tiny"), _workers(fleet, "tiny-on-two")) == (1, 2)


def test_all_of_its_ports_are_of_this_machine_and_only_the_router_s_answers_questions(fleet: Running) -> None:
    """Engines have no HTTP port, of vLLM's or of Serve's; what else listens knows no such question.

    But for one port of each replica that Serve opens to all: it asks for Ray's token before it reads anything.
    """
    ports = fleet.listening()
    assert len(ports) > 5
    opened = {port for address, port in ports if address.removeprefix("::ffff:") != "127.0.0.1"}
    replicas = fleet.fleet.processes("ServeReplica:headrace:")
    assert len(opened) <= len(replicas)
    assert {_refuses_a_call(port) for port in opened} <= {grpc.StatusCode.UNAUTHENTICATED}
    with ThreadPoolExecutor(max_workers=32) as threads:
        answered = list(threads.map(_answers_questions, sorted(ports)))
    assert [port for port in answered if port] == [fleet.fleet.port]


@pytest.mark.prove
def test_load_brings_a_second_replica_and_its_end_takes_it_away_without_losing_a_request(
    fleet: Running,
) -> None:
    outcomes = asyncio.run(_load_until_two_then_one(fleet))
    assert len(outcomes) > 50
    assert set(outcomes) == {"whole"}
    assert fleet.gauge("headrace_requests_total", model="tiny", outcome="failed") == []


def test_a_killed_replica_takes_its_engine_with_it(fleet: Running) -> None:
    before = [
        process
        for process in fleet.fleet.processes("headrace:engine-tiny")
        if "engine-tiny-on-two" not in " ".join(process.cmdline())
    ]
    cores = [child for process in before for child in process.children(recursive=True)]
    assert len(cores) >= 2
    for process in before:
        os.kill(process.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs([*before, *cores], timeout=15)
    assert alive == []


def _answers_questions(where: tuple[str, int]) -> int:
    """The port, if it answers a question as a server of models does; else 0."""
    body = {"model": "tiny", "prompt": "A class is", "max_tokens": 1}
    try:
        answer = httpx.post(f"http://127.0.0.1:{where[1]}/v1/completions", json=body, timeout=5, trust_env=False)
    except httpx.TransportError:
        return 0
    return where[1] if answer.status_code == 200 else 0


def _refuses_a_call(port: int) -> grpc.StatusCode:
    """What Serve's own port of a replica says to who has no token."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/ray.serve.ASGIService/HandleRequest")(b"", timeout=10)
        return refused.value.code()  # type: ignore[attr-defined]


def _workers(fleet: Running, model: str) -> int:
    """Processes below the engine core of any replica of a model; load may be bringing another one.

    Told by descent, since vLLM's titles don't always take.
    """
    replicas = [one for one in fleet.fleet.processes(f"headrace:engine-{model}") if _serves(one, model)]
    return max(sum(child.ppid() != one.pid for child in one.children(recursive=True)) for one in replicas)


def _serves(process: psutil.Process, model: str) -> bool:
    return model == "tiny-on-two" or "engine-tiny-on-two" not in " ".join(process.cmdline())


async def _load_until_two_then_one(fleet: Running) -> list[str]:
    """Twelve streams until two replicas serve, then two until one is left; how each request ended."""
    outcomes: list[str] = []
    async with httpx.AsyncClient(base_url=fleet.url, timeout=120) as client:
        await _stream_while(client, outcomes, streams=12, go_on=lambda: len(_tiny_replicas(fleet)) < 2)
        await _stream_while(client, outcomes, streams=2, go_on=lambda: len(_tiny_replicas(fleet)) > 1)
    return outcomes


def _tiny_replicas(fleet: Running) -> list[float]:
    return fleet.gauge("headrace_replica_running_requests", model="tiny")


async def _stream_while(
    client: httpx.AsyncClient, outcomes: list[str], *, streams: int, go_on: Callable[[], bool]
) -> None:
    wanted = True

    async def one() -> None:
        while wanted:
            outcomes.append(await _ask(client))

    workers = [asyncio.ensure_future(one()) for _ in range(streams)]
    while await asyncio.to_thread(go_on):
        await asyncio.sleep(0.2)
    wanted = False
    await asyncio.gather(*workers)


async def _ask(client: httpx.AsyncClient) -> str:
    body = {"model": "tiny", "prompt": "A class is", "max_tokens": 120, "ignore_eos": True, "stream": True}
    tokens = '"finish_reason":"length"'
    async with client.stream("POST", "/v1/completions", json=body) as response:
        text = "".join([part async for part in response.aiter_text()])
    whole = response.status_code == 200 and tokens in text and text.endswith("data: [DONE]\n\n")
    return "whole" if whole else f"{response.status_code}: {text[-300:]}"
