"""Does a reader get what it would have got anyway, however often and in whatever way its replicas die?"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments import link
from deployments.continuation import SoFar, go_on, may_continue, rest
from deployments.frames import Delta, Submit
from deployments.lane import RETRIES, Lane
from deployments.openai_wire import ApiError
from tests.deployments.fake_engine import CACHED_TOKENS, SAYING, FakeEngine, expected

REPLICAS, STREAMS = 3, 6
FOR_EVER = 10**9


@given(max_tokens=st.none() | st.integers(1, 100), min_tokens=st.none() | st.integers(0, 100), said=st.integers(0, 100))
def test_what_is_left_to_say_and_what_was_said_are_what_was_asked(
    max_tokens: int | None, min_tokens: int | None, said: int
) -> None:
    asked = {"max_tokens": max_tokens, "stop": ["x"]} | ({} if min_tokens is None else {"min_tokens": min_tokens})
    before = dict(asked)
    left = rest(asked, said)
    assert left.keys() == asked.keys()
    assert left["stop"] == ["x"]
    assert left["max_tokens"] == (None if max_tokens is None else max_tokens - said)
    assert left.get("min_tokens", 0) == max(0, (min_tokens or 0) - said)
    assert asked == before


pieces = st.lists(
    st.tuples(st.sampled_from(["", "a", "é🚰", "日本語"]), st.lists(st.integers(0, 2**32 - 1), max_size=3)), max_size=20
)


@given(pieces, st.lists(st.integers(0, 20), max_size=4))
def test_a_request_that_goes_on_tells_all_that_came_whoever_said_it(
    said: list[tuple[str, list[int]]], deaths: list[int]
) -> None:
    order = first = Submit(1, 0, [5, 6], {"max_tokens": 100}, True, None)
    so_far = SoFar()
    for place, (text, ids) in enumerate(said):
        delta = Delta(1, order.attempt, 0, text, ids, cached_tokens=place)
        so_far.add(delta)
        assert delta.cached_tokens == 0, "what the first one told"
        for _ in range(deaths.count(place)):
            order = go_on(order, so_far)
            assert order.said_ids == [token_id for _, ids in said[: place + 1] for token_id in ids]
            assert order.sent_characters == sum(len(text) for text, _ in said[: place + 1])
    assert (order.prompt_ids, order.sampling) == (first.prompt_ids, first.sampling)
    assert order.attempt == sum(place < len(said) for place in deaths)


def test_what_is_not_streamed_is_not_continued_but_begins_again() -> None:
    assert may_continue(Submit(1, 0, [5], {}, True, None))
    assert not may_continue(Submit(1, 0, [5], {}, False, None))


def forgets(engine: FakeEngine) -> None:
    """Its core died: what it had not sent is never sent."""
    engine.close(died=True)


def leaves(engine: FakeEngine) -> None:
    """It says what it has left to say, and goodbye."""
    engine.close()


def loses_a_frame(engine: FakeEngine) -> None:
    """The next frame is not the one that routers expect; it goes on, unheard."""
    for peer in engine.link._routers.values():
        peer.sent_frames += 1


@dataclass
class Replicas:
    """Some that are replaced when they die, and streams that know what they must read."""

    lane: Lane
    random: Random
    engines: dict[str, FakeEngine] = field(default_factory=dict)
    unheard: list[FakeEngine] = field(default_factory=list)
    read: int = 0
    given_up: int = 0
    """Streams that lost RETRIES + 1 replicas before any of them said a word."""

    def add(self) -> None:
        name, engine = f"replica {self.random.random()}", FakeEngine(step_s=[0.0])
        engine.join(self.lane, name)
        self.engines[name] = engine

    async def kill(self, how: Callable[[FakeEngine], None]) -> None:
        """One of them, once it has said something of a stream."""
        victim = await self._talking(self.random.randint(1, 40))
        how(self.engines[victim])
        # Not in the same turn: the poll of a closed end takes back its reader of a number that a new one would have.
        async with asyncio.timeout(10.0):
            while victim in self.lane.replicas:
                await asyncio.sleep(0)
        while len(self.unheard) > 5:
            self.unheard.pop(0).close()

    async def _talking(self, tokens: int) -> str:
        """The name of one that has said so many tokens of a stream."""
        async with asyncio.timeout(120.0):  # with a busy machine, whose links are lost by themselves
            while True:
                self._replace()
                talking = [name for name, engine in self.engines.items() if engine.said_tokens >= tokens]
                if talking:
                    return self.random.choice(talking)
                await asyncio.sleep(0)

    def _replace(self) -> None:
        """Those that were lost: killed, or because this process was held up for longer than the link bears."""
        lost = [name for name in self.engines if name not in self.lane.replicas]
        self.unheard += [self.engines.pop(name) for name in lost]
        while len(self.engines) < REPLICAS:
            self.add()

    async def client(self) -> None:
        while True:
            prompt = [self.random.randrange(256) for _ in range(3)]
            start = self.random.randrange(len(SAYING) - 6)
            stop = (
                [SAYING[start : start + self.random.randint(1, 6)], "never this"] if self.random.random() < 0.5 else []
            )
            await self._read(prompt, {"max_tokens": self.random.randint(40, 200), "stop": stop})
            self.read += 1

    async def _read(self, prompt: list[int], sampling: dict[str, Any]) -> None:
        ticket = self.lane.enter(prompt, sampling, stream=True, news=asyncio.Event())
        deltas: list[Delta] = []
        while ticket.unread:
            await ticket.news.wait()
            ticket.news.clear()
            try:
                deltas.extend(ticket.take())
            except ApiError:
                assert not deltas
                assert ticket.attempt >= RETRIES
                self.given_up += 1
                return
        said = expected(prompt, **sampling)
        assert "".join(delta.text for delta in deltas) == said.text
        ids = tuple(token_id for delta in deltas for token_id in delta.token_ids)
        assert ids == said.token_ids
        assert bytes(ids).decode(errors="ignore").startswith(said.text)
        assert [delta.finish for delta in deltas if delta.finish is not None] == [said.finish]
        assert deltas[-1].stop == said.stop
        assert deltas[-1].cached_tokens == CACHED_TOKENS


async def suffer(deaths: int, monkeypatch: pytest.MonkeyPatch) -> Replicas:
    """Kills so many replicas under streams."""
    monkeypatch.setattr(link, "LINGER_S", 0.1)  # goodbyes don't go far
    lane = Lane("m", max_queued_requests=STREAMS, log=lambda _: None, continuations=FOR_EVER)
    replicas = Replicas(lane, Random(7))
    clients = [asyncio.ensure_future(replicas.client()) for _ in range(STREAMS)]
    try:
        for number in range(deaths):
            await replicas.kill((forgets, leaves, loses_a_frame)[number % 3])
            for client in clients:
                assert not client.done(), client.result()
        read = replicas.read
        async with asyncio.timeout(10.0):
            while replicas.read < read + STREAMS:
                await asyncio.sleep(0.001)
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        lane.close()
        for engine in [*replicas.engines.values(), *replicas.unheard]:
            engine.close()
    return replicas


@pytest.mark.anyio
async def test_streams_outlive_their_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    replicas = await suffer(9, monkeypatch)
    assert replicas.lane.continuations >= 9


@pytest.mark.prove
@pytest.mark.timeout(1500)
@pytest.mark.anyio
async def test_streams_outlive_2000_replicas(
    monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    replicas = await suffer(2000, monkeypatch)
    assert replicas.lane.continuations >= 2000
    assert replicas.given_up < replicas.read / 1000
    record_property("streams continued", replicas.lane.continuations)
    record_property("streams read to their end", replicas.read)
    record_property("streams given up before their first token", replicas.given_up)
