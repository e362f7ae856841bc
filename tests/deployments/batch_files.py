"""What do tests of batches put in, and what do they read of what comes out?"""

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any

import openai
from openai.types import Batch

from tests.deployments.fake_engine import expected
from tests.deployments.http_served import CHAT, MODEL, Kept, Served

ENDED = ("completed", "failed", "expired", "cancelled")


def kept(url: str, folder: object, **more: Any) -> Kept:
    return Kept(url=url, files=f"{folder}/files", **more)


def chat(name: str, content: str, **fields: Any) -> dict[str, Any]:
    """A line."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 5} | fields
    return {"custom_id": name, "method": "POST", "url": CHAT, "body": body}


def text_of(lines: Iterable[dict[str, Any] | str]) -> bytes:
    return "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines).encode()


async def put(client: openai.AsyncOpenAI, lines: Iterable[dict[str, Any] | str], **fields: Any) -> Batch:
    """A batch of these lines, as a user asks for one."""
    file = await client.files.create(file=("in.jsonl", text_of(lines)), purpose="batch")
    given: Any = {"endpoint": CHAT, "completion_window": "24h"} | fields
    return await client.batches.create(input_file_id=file.id, **given)


async def ended(client: openai.AsyncOpenAI, name: str, within_s: float = 60.0) -> Batch:
    """Once it has ended, however. Raises TimeoutError."""
    async with asyncio.timeout(within_s):
        while (batch := await client.batches.retrieve(name)).status not in ENDED:
            await asyncio.sleep(0.02)
    return batch


async def lines_of(client: openai.AsyncOpenAI, file: str | None) -> list[dict[str, Any]]:
    """Of an output file or an error file."""
    if file is None:
        return []
    return [json.loads(line) for line in (await client.files.content(file)).content.splitlines()]


def said(line: dict[str, Any]) -> str:
    """The answer that a line of an output file has to a chat."""
    return line["response"]["body"]["choices"][0]["message"]["content"]


async def answers(served: Served, contents: Sequence[str], max_tokens: int = 5) -> list[str]:
    """What the engine says to each."""
    return [expected(await served.chat_ids(one), max_tokens=max_tokens).text for one in contents]
