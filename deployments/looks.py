"""How does a router do something again and again, and say once when it can't?"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn


async def go_on_looking(
    look: Callable[[], Awaitable[None]],
    every_s: float,
    failed: Callable[[Exception], str],
    log: Callable[[str], None],
) -> NoReturn:
    """Looks until it is cancelled, with so many seconds between two looks. A failure in the same words is said once."""
    said = ""
    while True:
        try:
            await look()
            said = ""
        except Exception as error:
            if (words := failed(error)) != said:
                log(words)
                said = words
        await asyncio.sleep(every_s)
