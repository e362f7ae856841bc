"""How does a router do something again and again, and say once when it can't?"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from deployments.said_once import SaidOnce


async def go_on_looking(
    look: Callable[[], Awaitable[None]],
    every_s: float,
    failed: Callable[[Exception], str],
    log: Callable[[str], None],
) -> NoReturn:
    """Looks until it is cancelled, with so many seconds between two looks. A failure in the same words is said once."""
    said = SaidOnce(log)
    while True:
        try:
            await look()
            said.works()
        except Exception as error:
            said.fails(failed(error))
        await asyncio.sleep(every_s)
