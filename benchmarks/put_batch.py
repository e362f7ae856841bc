"""How does a benchmark put lines as a batch, and look at it?"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import openai
from openai.types import Batch

GOING_ON = ("validating", "in_progress", "finalizing")


def client_of(url: str) -> openai.OpenAI:
    """As any user of a fleet without keys has it."""
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=600.0)


def uploaded(client: openai.OpenAI, bodies: Iterable[Mapping[str, Any]]) -> str:
    """The id of a file with a line for each body, by number, all for /v1/completions."""
    rows = (
        {"custom_id": str(number), "method": "POST", "url": "/v1/completions", "body": body}
        for number, body in enumerate(bodies)
    )
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return client.files.create(file=("in.jsonl", text), purpose="batch").id


def begun(client: openai.OpenAI, file: str) -> str:
    """The id of a batch of that file."""
    return client.batches.create(input_file_id=file, endpoint="/v1/completions", completion_window="24h").id


def looked_at(client: openai.OpenAI, batch_id: str) -> Batch:
    """As it is now. Raises RuntimeError if it, or a line of it, failed."""
    batch = client.batches.retrieve(batch_id)
    if batch.status not in (*GOING_ON, "completed"):
        raise RuntimeError(f"the batch is {batch.status}: {batch.errors}")
    if batch.request_counts and batch.request_counts.failed:
        raise RuntimeError(f"{batch.request_counts.failed} lines failed")
    return batch
