"""Does a model that pools start, pass its check, and answer as on vLLM's own server, and is nothing of it left behind?

The embedding model is a real one; the classifier's layers are that model's, its last one is made of chance.
"""

import json
import math
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from deployments import reference
from deployments.vector_check import distance
from headrace.fetching import references, resolve
from tests.deployments import pooled, two_servers
from tests.deployments.two_servers import NAME, Pair, Server, wait_for

pytestmark = [pytest.mark.prove, pytest.mark.timeout(400)]

ENGINE = {"dtype": "float32", "max_num_seqs": 8, "kv_cache_memory_bytes": 64 << 20}
CONTEXT_TOKENS = 256
CLASSES = 3


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    # The model was not trained to be cut to fewer dimensions; how they are asked for is the same.
    with two_servers.pair(resolve("minilm"), ENGINE | {"hf_overrides": {"is_matryoshka": True}}) as servers:
        yield servers


@pytest.fixture(scope="module")
def client(pair: Pair) -> Iterator[openai.OpenAI]:
    url = f"{str(pair.ours.client.base_url).rstrip('/')}/v1"
    with openai.OpenAI(base_url=url, api_key="unused", max_retries=0) as client:
        yield client


def known() -> reference.Vectors:
    vectors = reference.load_vectors(resolve("minilm"))
    assert vectors is not None
    return vectors


@pytest.mark.parametrize("case", pooled.ANSWERED)
def test_an_answer_is_vllm_s_own(pair: Pair, case: str) -> None:
    said, expected = (pooled.ask(server.client, *pooled.ANSWERED[case]) for server in (pair.ours, pair.theirs))
    assert said.status == 200, said.body
    assert (said.status, said.kind) == (expected.status, expected.kind)
    assert pooled.alike(said.body, expected.body)


@pytest.mark.parametrize("case", pooled.REFUSED)
def test_a_refusal_is_vllm_s_own(pair: Pair, case: str) -> None:
    said, expected = (pooled.ask(server.client, *pooled.REFUSED[case]) for server in (pair.ours, pair.theirs))
    assert said.status >= 400
    assert said == expected


def test_raw_bytes_come_with_what_says_where_each_vector_lies(pair: Pair) -> None:
    path, body = pooled.embed(input=pooled.TEXTS, encoding_format="bytes")
    answers = [server.client.post(path, json=body).raise_for_status() for server in (pair.ours, pair.theirs)]
    said, expected = (json.loads(answer.headers["metadata"]) for answer in answers)
    assert said["data"] == expected["data"]
    assert said["usage"] == expected["usage"]
    assert pooled.alike(*(pooled.floats(answer.content) for answer in answers))


def test_the_engine_s_vectors_agreed_with_the_reference(pair: Pair) -> None:
    assert pair.ours.metric("replica_verified") == 1


def test_it_is_listed_with_its_context(client: openai.OpenAI) -> None:
    (card,) = client.models.list().data
    assert (card.id, card.model_dump()["max_model_len"]) == (NAME, CONTEXT_TOKENS)


@pytest.mark.parametrize("form", ["float", None])
def test_openai_s_client_gets_the_vectors_that_transformers_computed(client: openai.OpenAI, form: Any) -> None:
    """Unless it is told how, it asks for base64 and decodes that itself."""
    asked = [list(vector.token_ids) for vector in known().vectors]
    answer = client.embeddings.create(model=NAME, input=asked, **({"encoding_format": form} if form else {}))
    assert [item.index for item in answer.data] == list(range(len(asked)))
    vectors = [list(item.embedding) for item in answer.data]
    far = max(distance(found, list(vector.values)) for found, vector in zip(vectors, known().vectors, strict=True))
    assert far < 1e-4
    assert answer.usage.prompt_tokens == sum(map(len, asked))


def test_openai_s_client_gets_as_many_dimensions_as_it_asks_for(client: openai.OpenAI) -> None:
    (cut,) = client.embeddings.create(model=NAME, input="What is a class?", dimensions=64).data
    (whole,) = client.embeddings.create(model=NAME, input="What is a class?").data
    assert math.hypot(*cut.embedding) == pytest.approx(1.0, abs=1e-4)
    length = math.hypot(*whole.embedding[:64])
    assert cut.embedding == pytest.approx([value / length for value in whole.embedding[:64]], abs=1e-5)
    with pytest.raises(openai.BadRequestError, match="only supports dimensions in range"):
        client.embeddings.create(model=NAME, input="x", dimensions=385)


def test_what_is_about_the_same_is_found(pair: Pair) -> None:
    documents = ["The stock market fell today.", "A man eats something.", "Rust is a language."]
    asked = {"model": NAME, "query": "A man is eating food.", "documents": documents}
    results = pair.ours.client.post("/rerank", json=asked).json()["results"]
    assert results[0]["index"] == 1
    assert results[0]["relevance_score"] > 0.8 > 0.2 > results[1]["relevance_score"]


@pytest.mark.parametrize("case", [pooled.embed(input=pooled.TEXTS), pooled.pool()])
def test_prompt_tokens_are_counted_as_the_client_is_told(pair: Pair, case: pooled.Case) -> None:
    told, counted = counts(pair.ours, case)
    assert told > len(pooled.TEXTS)
    assert counted == (told, 0)


@pytest.mark.parametrize("case", [pooled.score(), pooled.rerank()])
def test_of_a_query_to_several_documents_the_tokens_are_counted_that_the_engine_read(
    pair: Pair, case: pooled.Case
) -> None:
    """The query once, though vLLM tells the client as if each document came with it."""
    texts = ["What do people eat?", *pooled.TEXTS]
    read = sum(
        pair.ours.client.post("/tokenize", json={"model": NAME, "prompt": text}).json()["count"] for text in texts
    )
    told, counted = counts(pair.ours, case)
    assert counted == (read, 0)
    assert told > read


def counts(server: Server, case: pooled.Case) -> tuple[int, tuple[float, float]]:
    """The prompt tokens that a client was told, and the prompt and output tokens that the metrics grew by."""
    path, body = case
    names = ("prompt_tokens_total", "output_tokens_total")
    before = [server.metric(name) for name in names]
    usage = server.client.post(path, json=body).raise_for_status().json()["usage"]
    after = [server.metric(name) for name in names]
    return usage["prompt_tokens"], (after[0] - before[0], after[1] - before[1])


def test_clients_that_leave_at_any_moment_leave_nothing_in_the_engine(pair: Pair) -> None:
    many = ["word " * 200] * 300
    cases = [
        pooled.embed(input=many),
        pooled.pool(input=many),
        pooled.score(documents=many),
        pooled.rerank(documents=many),
    ]
    moments, url = random.Random(0), pair.ours.client.base_url
    for path, body in cases * 3:
        content = json.dumps(body).encode()
        kind, length = "content-type: application/json", f"content-length: {len(content)}"
        with socket.create_connection((url.host, url.port)) as client:
            client.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\n{kind}\r\n{length}\r\n\r\n".encode() + content)
            time.sleep(moments.choice([0, 0.01, 0.05, 0.2]))
    wait_for(lambda: pair.ours.metric("open_requests") == 0)
    wait_for(lambda: not any(pair.ours.metric(f"replica_{kind}_requests") for kind in ("running", "waiting")))
    assert pooled.ask(pair.ours.client, *pooled.embed()).status == 200


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedding model's layers under a classifying one, with its reference as `headrace fetch FOLDER` makes it."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(resolve("minilm"), num_labels=CLASSES)
    # transformers begins with weights so small that every text would be of every class.
    torch.nn.init.normal_(model.classifier.weight, std=2.0)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve("minilm")).save_pretrained(folder)
    references.add(folder, "classifier", lambda _: None)
    return folder


def test_a_classifier_is_checked_too_and_names_classes_as_transformers_does(classifier: Path) -> None:
    vectors = reference.load_vectors(classifier)
    assert vectors is not None
    assert vectors.task == "classify"
    assert len({max(range(CLASSES), key=vector.values.__getitem__) for vector in vectors.vectors}) > 1
    with two_servers.one(classifier, ENGINE) as server:
        assert server.metric("replica_verified") == 1
        asked = [list(vector.token_ids) for vector in vectors.vectors]
        answer = server.client.post("/classify", json={"model": NAME, "input": asked}).raise_for_status().json()
        for found, vector in zip(answer["data"], vectors.vectors, strict=True):
            assert found["probs"] == pytest.approx(vector.values, abs=1e-4)
        assert server.client.post("/v1/embeddings", json={"model": NAME, "input": "x"}).status_code == 404
