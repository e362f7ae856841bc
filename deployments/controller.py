"""How does a router read the journal of decisions, which lies in the process of Serve's controller?

Of what Serve offers nothing carries more than a number of replicas: its status and REST have no place for a policy's
words, its metrics take numbers only, and a file would have to be written by the policy, on the controller's machine.
Ray lets any caller run a function in an actor (`__ray_call__`); the one sent here only copies a list, now and then.
It goes by value, since the controller need not have this project installed.
"""

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any

import ray

from autoscaling import JOURNAL, Cursor, Entry

CONTROLLER, NAMESPACE = "SERVE_CONTROLLER_ACTOR", "serve"
"""By these names Serve itself finds it."""


async def from_controller(cursor: Cursor) -> tuple[Cursor, list[Entry]]:
    """What was decided after the cursor, and the next one. Raises Ray's errors while the controller is away."""
    controller = await asyncio.to_thread(_controller)
    return await controller.__ray_call__.remote(_reader(), JOURNAL, cursor)


@cache
def _controller() -> Any:
    return ray.get_actor(CONTROLLER, namespace=NAMESPACE)


def _reader() -> Callable[[object, str, Cursor], tuple[Cursor, list[Entry]]]:
    """A function within a function is shipped by value."""

    def read(actor: object, name: str, cursor: Cursor) -> tuple[Cursor, list[Entry]]:
        import logging

        handlers: list[Any] = logging.getLogger(name).handlers
        return handlers[0].since(cursor) if handlers else (cursor, [])

    return read
