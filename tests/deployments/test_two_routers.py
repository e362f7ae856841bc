"""Do tenants get equal shares of an engine that two routers use, over real links, whoever sends more?"""

import asyncio
from collections import Counter

import pytest

from deployments.lane import Lane
from deployments.sender import Sender
from deployments.ticket import Ticket
from tests.deployments.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio

ENDED = 600
WAITING = {"ten": 30, "one": 3}
"""Requests that each tenant has in each router, all the time."""


async def keep_asking(lane: Lane, tenant: str, ended: Counter[str]) -> None:
    """One request after the other, for as long as the test lasts."""
    while True:
        news = asyncio.Event()
        ticket: Ticket = lane.enter([1] * 20, {"max_tokens": 4}, stream=False, news=news, sender=Sender(tenant=tenant))
        while ticket.open_choices:
            await news.wait()
            news.clear()
        ticket.whole()
        lane.leave(ticket)
        ended[tenant] += 1


async def test_one_that_sends_ten_times_as_much_through_both_gets_no_more() -> None:
    engine, ended = FakeEngine(slots=4, step_s=[0.0]), Counter[str]()
    lanes = [Lane("m", max_queued_requests=1000, log=lambda _: None) for _ in range(2)]
    for place, lane in enumerate(lanes):
        engine.join(lane, str(place))
    senders = [
        asyncio.ensure_future(keep_asking(lane, tenant, ended))
        for lane in lanes
        for tenant, count in WAITING.items()
        for _ in range(count)
    ]
    try:
        async with asyncio.timeout(60.0):
            while ended.total() < ENDED:
                await asyncio.sleep(0.01)
                assert not any(sender.done() for sender in senders)
    finally:
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)
        for lane in lanes:
            lane.close()
        engine.close()
    assert abs(ended["one"] / ended.total() - 0.5) <= 0.05, ended
