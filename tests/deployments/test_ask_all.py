"""Does a replica that is out of reach keep anybody from what the others answer?"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from deployments.ask_all import ask_all


@dataclass
class Replicas:
    """As Serve's handle has them: each answers in its own way."""

    answers: list[Callable[[], Awaitable[Any]]]

    def broadcast(self, _method: str, *_arguments: Any) -> "Replicas":
        return self

    async def _fetch_replica_results_async(self) -> list["One"]:
        if not self.answers:
            raise RuntimeError("no replica")
        return [One(answer) for answer in self.answers]


@dataclass
class One:
    get_async: Callable[[], Awaitable[Any]]


async def well() -> str:
    return "well"


async def dead() -> str:
    raise ConnectionError("dead")


async def cancelled() -> str:
    raise asyncio.CancelledError


def asked(*answers: Callable[[], Awaitable[Any]]) -> tuple[list[Any], list[str]]:
    """What was told, and what was logged."""
    told, logged = list[Any](), list[str]()
    handle: Any = Replicas(list(answers))
    asyncio.run(ask_all(handle, "describe", tell=told.append, log=logged.append, patience_s=0.2))
    return told, logged


def test_each_answer_is_told_whatever_the_others_do() -> None:
    told, logged = asked(asyncio.Event().wait, well, dead, well, cancelled)
    assert told == ["well", "well"]
    assert len(logged) == 3


def test_an_answer_is_told_at_once_while_another_is_waited_for() -> None:
    async def first() -> None:
        said = asyncio.Event()
        handle: Any = Replicas([asyncio.Event().wait, well])
        asking = asyncio.ensure_future(
            ask_all(handle, "describe", tell=lambda _: said.set(), log=print, patience_s=60.0)
        )
        async with asyncio.timeout(5.0):
            await said.wait()
        assert not asking.done()
        asking.cancel()

    asyncio.run(first())


def test_without_replicas_nothing_is_told() -> None:
    told, logged = asked()
    assert told == []
    assert len(logged) == 1
