"""Is a request that a core cuts off, as one does that is told to end, ever taken for answered?"""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.frames import Delta, Failure
from deployments.vllm_outputs import putter
from tests.deployments.test_vllm_app import CALL, ROUTER, Link, Llm, application, output

pytestmark = pytest.mark.anyio


def said_by_core(*finishes: str | None) -> Any:
    """An output with a choice for each."""
    choices = [
        SimpleNamespace(index=index, text="x", token_ids=[7], finish_reason=finish, stop_reason=None)
        for index, finish in enumerate(finishes)
    ]
    return SimpleNamespace(num_cached_tokens=0, outputs=choices)


def test_of_a_text_nothing_more_is_said() -> None:
    said, cut = list[Delta | Failure](), list[bool]()
    put = putter(1, 0, said.append, lambda: cut.append(True))
    put(said_by_core(None, "stop"))
    assert not cut
    put(said_by_core("abort"))
    assert cut == [True]
    assert [delta.finish for delta in said if isinstance(delta, Delta)] == [None, "stop"]
    assert len(said) == 2


def test_one_that_the_engine_could_not_serve_failed() -> None:
    said = list[Delta | Failure]()
    putter(1, 0, said.append, lambda: None)(said_by_core("error"))
    assert said == [Failure(1, 0, 500, "Internal server error")]


async def test_of_a_call_nothing_more_is_said_until_its_client_leaves() -> None:
    llm = Llm([output(1), output(0, finished=True, finish="abort")])
    cut = asyncio.Event()
    app, link = application(llm, cut_off=cut.set), Link()
    answering = asyncio.ensure_future(app.answer(ROUTER, CALL, link))  # pyright: ignore[reportArgumentType]
    async with asyncio.timeout(30):
        await cut.wait()
    assert link.tokens == (3, 1)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not answering.done()
    assert all(part.more for part in link.said)  # pyright: ignore[reportAttributeAccessIssue]
    app.leave(ROUTER, CALL.request)
    await answering
    assert llm.closed == 1
