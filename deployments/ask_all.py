"""What does each replica of a deployment answer, when some of them may be out of reach?

Serve's own `results_async` waits for all: a machine without power, or a replica that hangs, would keep a router from
the others until Ray takes it for dead, which may be more than a minute later.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from ray.serve.handle import DeploymentHandle

ANSWER_S = 5.0
"""Patience with each of them."""


async def ask_all(
    handle: DeploymentHandle,
    method: str,
    *arguments: Any,
    tell: Callable[[Any], None],
    log: Callable[[str], None],
    patience_s: float = ANSWER_S,
) -> None:
    """Asks them at the same time; `tell(answer)` as each comes. Ends with the last answer, or its patience."""

    async def hear(asked: Any) -> None:
        tell(await asyncio.wait_for(asked.get_async(), patience_s))

    try:
        # Serve tells single answers by this alone.
        found = await asyncio.wait_for(handle.broadcast(method, *arguments)._fetch_replica_results_async(), patience_s)
    except Exception as error:  # no replica yet
        log(f"{method}: {error!r}")
        return
    for error in await asyncio.gather(*map(hear, found), return_exceptions=True):
        if error is not None:  # it died just now, or is out of reach
            log(f"{method}: {error!r}")
