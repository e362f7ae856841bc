"""How does a user run a batch with OpenAI's client?"""

import json
import time
from collections.abc import Iterable
from typing import Any

import openai
from openai.types import Batch

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
PATIENCE_S = 240.0


def line(name: str, model: str, content: str, max_tokens: int = 24) -> dict[str, Any]:
    """A chat."""
    messages = [{"role": "user", "content": content}]
    body = {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0}
    return {"custom_id": name, "method": "POST", "url": CHAT, "body": body}


def put(client: openai.OpenAI, lines: Iterable[dict[str, Any]], endpoint: Any = CHAT) -> Batch:
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = client.files.create(file=("in.jsonl", text), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")


def ended(client: openai.OpenAI, name: str, patience_s: float = PATIENCE_S) -> Batch:
    """Once it has ended; whoever can't be reached meanwhile is asked again."""
    end_s = time.monotonic() + patience_s
    while time.monotonic() < end_s:
        try:
            batch = client.batches.retrieve(name)
        except (openai.APIConnectionError, openai.InternalServerError):
            batch = None
        if batch is not None and batch.status in ("completed", "failed", "expired", "cancelled"):
            return batch
        time.sleep(0.2)
    raise TimeoutError(f"{name} has not ended in {patience_s:g} s")


def output_of(client: openai.OpenAI, batch: Batch) -> list[dict[str, Any]]:
    content = client.files.content(batch.output_file_id or "").content
    return [json.loads(text) for text in content.splitlines()]


def said(line: dict[str, Any]) -> str:
    return line["response"]["body"]["choices"][0]["message"]["content"]
