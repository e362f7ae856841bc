"""Which requests does a model that pools answer, and which not? One of each shape, for a comparison of two servers."""

import base64
import json
import struct
from dataclasses import dataclass
from math import isclose
from typing import Any

import httpx

from tests.deployments.differential import MADE_ANEW
from tests.deployments.two_servers import NAME

Case = tuple[str, dict[str, Any] | bytes]

TEXTS = ["A man is eating food.", "naïve café 日本語 😀", "word " * 120]


def embed(**fields: Any) -> Case:
    return "/v1/embeddings", {"model": NAME, "input": "What is a class?"} | fields


def score(path: str = "/score", **fields: Any) -> Case:
    return path, {"model": NAME, "queries": "What do people eat?", "documents": TEXTS} | fields


def rerank(path: str = "/rerank", **fields: Any) -> Case:
    return path, {"model": NAME, "query": "What do people eat?", "documents": TEXTS} | fields


def pool(**fields: Any) -> Case:
    return "/pooling", {"model": NAME, "input": TEXTS} | fields


ANSWERED: dict[str, Case] = {
    "a text": embed(),
    "texts": embed(input=TEXTS),
    "token ids": embed(input=[101, 7592, 102]),
    "lists of token ids": embed(input=[[101, 7592, 102], [101, 102]]),
    "floats asked for": embed(encoding_format="float"),
    "base64": embed(input=TEXTS, encoding_format="base64"),
    "fewer dimensions": embed(input=TEXTS, dimensions=64),
    "a vector of any length": embed(use_activation=False),
    "the first tokens alone": embed(input=TEXTS, truncate_prompt_tokens=5),
    "a user and a field that is unknown": embed(user="ann", unknown_field=3),
    "no model": ("/v1/embeddings", {"input": "x"}),
    "texts by Cohere's address": ("/v2/embed", {"model": NAME, "texts": TEXTS, "embedding_types": ["float"]}),
    "a score for each document": score(),
    "scores of pairs": score(queries=TEXTS, documents=TEXTS[::-1]),
    "the older address of scores": score("/v1/score"),
    "documents in order": rerank(),
    "documents in order, by the addresses of others": rerank("/v1/rerank"),
    "the best document": rerank("/v2/rerank", top_n=1),
    "texts pooled": pool(),
    "a task named": pool(task="embed"),
    "tokens of a text": ("/tokenize", {"model": NAME, "prompt": TEXTS[1], "return_token_strs": True}),
    "text of tokens": ("/detokenize", {"model": NAME, "tokens": [101, 7592, 102]}),
}

REFUSED: dict[str, Case] = {
    "a chat": ("/v1/chat/completions", {"model": NAME, "messages": [{"role": "user", "content": "x"}]}),
    "a completion": ("/v1/completions", {"model": NAME, "prompt": "x"}),
    "texts and images to embed at once": ("/v2/embed", {"model": NAME, "texts": ["x"], "images": ["data:x"]}),
    "no body": ("/v1/embeddings", b""),
    "half of a body": ("/v1/embeddings", b'{"model": "tiny", '),
    "no input": ("/v1/embeddings", {"model": NAME}),
    "an empty list": embed(input=[]),
    "a text beyond the context": embed(input="word " * 300),
    "a text beyond the context among others": embed(input=[*TEXTS, "word " * 300]),
    "a token outside of the vocabulary": embed(input=[10**6]),
    "more dimensions than there are": embed(dimensions=10**4),
    "a format that there is not": embed(encoding_format="words"),
    "a cut beyond the context": embed(truncate_prompt_tokens=10**4),
    "a chat to a model without a template": embed(input=None, messages=[{"role": "user", "content": "x"}]),
    "no documents": ("/score", {"model": NAME, "queries": "x"}),
    "pairs that do not match": score(queries=["a", "b"]),
    "no query": ("/rerank", {"model": NAME, "documents": TEXTS}),
    "less than none of the documents": rerank(top_n=-1),
    "a task that the fleet would have to choose": pool(task="token_embed"),
    "a task that there is not": pool(task="guess"),
    "classes of a model without classes": ("/classify", {"model": NAME, "input": "x"}),
    "a response": ("/v1/responses", {"model": NAME, "input": "x"}),
    "a message": ("/v1/messages", {"model": NAME, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}),
    "a chat of the second kind": (
        "/v1/chat/completions",
        {"model": NAME, "messages": [{"role": "user", "content": "x"}], "logprobs": True},
    ),
}


@dataclass(frozen=True, kw_only=True)
class Said:
    """Everything that a program sees of an answer, but for MADE_ANEW."""

    status: int
    kind: str
    body: Any


def ask(client: httpx.Client, path: str, body: dict[str, Any] | bytes) -> Said:
    """Asks one server; base64 becomes numbers."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = client.post(path, content=content, headers={"content-type": "application/json"})
    return Said(status=response.status_code, kind=response.headers["content-type"], body=_plain(response.json()))


def alike(one: Any, other: Any) -> bool:
    """Whether two answers are the same; numbers may differ by float32's rounding, which batches change."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return isclose(one, other, rel_tol=1e-4, abs_tol=1e-5)
    return one == other


def floats(packed: bytes) -> list[float]:
    """Little-endian 32-bit numbers."""
    return list(struct.unpack(f"<{len(packed) // 4}f", packed))


def _plain(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner, name) for name, inner in value.items() if name not in MADE_ANEW}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return floats(base64.b64decode(value)) if name == "embedding" and isinstance(value, str) else value
