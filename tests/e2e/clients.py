"""What do clients do while a fleet changes, and does each request come to its end?"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

TIMEOUT_S = 300.0


@dataclass
class Load:
    """What clients do at the same time, and how it went."""

    streams: int
    """Streams as long as the context, one after the other, each on a new connection."""
    quick: int
    """Clients whose requests are short, each on a new connection."""
    outcomes: Counter[str] = field(default_factory=Counter)
    stream_s: list[float] = field(default_factory=list)
    quick_s: list[float] = field(default_factory=list)


@asynccontextmanager
async def under(load: Load, url: str, *, stream_tokens: int) -> AsyncIterator[None]:
    """Load, until the block has ended and what was asked then has been answered."""
    go_on = True

    async def stream(number: int) -> None:
        while go_on and number < load.streams:
            await _ask(url, load, load.stream_s, max_tokens=stream_tokens)

    async def quick(number: int) -> None:
        while go_on and number < load.quick:
            await _ask(url, load, load.quick_s, max_tokens=4)

    async with asyncio.TaskGroup() as group:
        for number in range(load.streams):
            group.create_task(stream(number))
        for number in range(load.quick):
            group.create_task(quick(number))
        try:
            yield
        finally:
            go_on = False


async def _ask(url: str, load: Load, seconds: list[float], max_tokens: int) -> None:
    """With a client of its own, so that no pool closes what another request was just given."""
    body = {"model": "tiny", "prompt": "A class is", "max_tokens": max_tokens, "ignore_eos": True, "stream": True}
    body |= {"stream_options": {"include_usage": True}}
    began_s, text = time.monotonic(), ""
    try:
        async with (
            httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, verify=False) as client,
            client.stream("POST", "/v1/completions", json=body) as response,
        ):
            async for part in response.aiter_text():
                text += part
    except httpx.HTTPError as error:
        after_s = time.monotonic() - began_s
        load.outcomes[f"{error!r} at {time.strftime('%T')} after {after_s:.2f} s and {len(text)} characters"] += 1
        return
    seconds.append(time.monotonic() - began_s)
    whole = f'"completion_tokens":{max_tokens}' in text and text.endswith("data: [DONE]\n\n")
    load.outcomes["whole" if response.status_code == 200 and whole else f"{response.status_code}: {text[-300:]}"] += 1
