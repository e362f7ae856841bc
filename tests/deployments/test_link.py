"""Does the link carry everything once and in order, keep strangers out, and notice who is gone?"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from subprocess import PIPE, Popen
from time import monotonic
from typing import Any

import msgspec
import pytest
import zmq
import zmq.asyncio
import zmq.utils.monitor
from hypothesis import given
from hypothesis import strategies as st

from deployments import link
from deployments.frames import (
    BEAT_S,
    SILENCE_S,
    VERSION,
    Cancel,
    Delta,
    EngineFrame,
    Failure,
    Load,
)
from deployments.link import LINGER_S, RouterEnd
from deployments.wire import FRAMES_IN_FLIGHT
from tests.deployments.link_ends import Ear, engine_end, frame, raw_router, router_end, submit

pytestmark = pytest.mark.anyio

FOUND_S = 2.5
"""A silent peer is found within so long."""
KERNEL_BYTES = 5 << 20
"""More than a connection of this machine keeps by itself."""


async def turn() -> None:
    """Ends this turn of the event loop."""
    await asyncio.sleep(0)


async def test_messages_and_answers_arrive_in_order() -> None:
    engine_ear, router_ear = Ear(), Ear()
    with engine_end(engine_ear) as engine, router_end(router_ear, engine) as router:
        for number in range(50):
            router.say(submit(number))
            router.say(Cancel(number))
            if number % 7 == 0:
                await turn()
        await engine_ear.until(lambda: len(engine_ear.heard) == 100)
        assert engine_ear.heard == [message for number in range(50) for message in (submit(number), Cancel(number))]

        (peer,) = engine._routers
        for number in range(50):
            engine.say(peer, Delta(number, 0, 0, f"text {number}", [number]))
            if number % 7 == 0:
                await turn()
        engine.say(peer, Failure(50, 0, 400, "no", "top_p"))
        await router_ear.until(lambda: router_ear.frames and router_ear.frames[-1].failures)
        said = [delta for frame in router_ear.frames for delta in frame.deltas]
        assert [(delta.request, delta.text) for delta in said] == [(i, f"text {i}") for i in range(50)]
        assert router_ear.frames[-1].failures == [Failure(50, 0, 400, "no", "top_p")]


async def test_who_stands_still_blames_no_peer_for_the_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "BEAT_S", 0.1)
    monkeypatch.setattr(link, "SILENCE_S", 0.3)
    engine_ear, router_ear = Ear(), Ear()
    with engine_end(engine_ear) as engine, router_end(router_ear, engine):
        await router_ear.until(lambda: router_ear.heard)
        threading.Event().wait(0.8)  # the event loop of both
        heard = len(router_ear.heard)
        await router_ear.until(lambda: len(router_ear.heard) >= heard + 4)
        assert (engine_ear.lost, router_ear.lost) == ([], [])


async def test_one_turn_is_one_frame_in_both_directions() -> None:
    engine_ear, router_ear = Ear(), Ear()
    with engine_end(engine_ear) as engine, router_end(router_ear, engine) as router:
        await router_ear.until(lambda: router_ear.heard)
        sent = router._sent_frames
        for number in range(20):
            router.say(submit(number))
        await engine_ear.until(lambda: len(engine_ear.heard) == 20)
        assert router._sent_frames - sent <= 2, "one frame, and at most one beat"

        (peer,) = engine._routers
        for number in range(20):
            engine.say(peer, Delta(number, 0, 0, "a", [1]))
            engine.say(peer, Delta(number, 0, 0, "b", [2], "stop", "b", 7))
        await router_ear.until(lambda: router_ear.frames)
        (only,) = router_ear.frames
        assert only.deltas == [Delta(number, 0, 0, "ab", [1, 2], "stop", "b", 7) for number in range(20)]


async def test_credits_are_shared_and_submits_are_counted_for_each_router() -> None:
    engine_ear, one, other = Ear(), Ear(), Ear()
    load = Load(credit_requests=5, credit_tokens=100)
    with engine_end(engine_ear, load) as engine, router_end(one, engine) as router:
        router.say(submit(1))
        router.say(Cancel(1))
        await one.until(lambda: one.heard and one.heard[-1].load.received == 1)
        assert (one.heard[-1].load.credit_requests, one.heard[-1].load.credit_tokens) == (5, 100)
        with router_end(other, engine):
            await other.until(lambda: other.heard)
            assert other.heard[-1].load.received == 0
            # The first must have heard that it may send less before the other may send.
            await other.until(lambda: other.heard[-1].load.credit_requests > 0)
            assert (other.heard[-1].load.credit_requests, other.heard[-1].load.credit_tokens) == (2, 50)
            assert (one.heard[-1].load.credit_requests, one.heard[-1].load.credit_tokens) == (2, 50)


async def test_a_stranger_is_not_heard() -> None:
    ear = Ear()
    with engine_end(ear) as engine:
        async with raw_router(engine, allowed=False) as stranger:
            with stranger.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH) as events:
                await stranger.send(frame(0, submit(1)))
                event = await asyncio.wait_for(zmq.utils.monitor.recv_monitor_message(events), 5.0)
                assert event["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH
                stranger.disable_monitor()
        async with raw_router(engine) as known:
            await known.send(frame(0, submit(2)))
            await ear.until(lambda: ear.heard)
    assert ear.heard == [submit(2)]


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(frame(2, submit(2)), id="a gap"),
        pytest.param(frame(0, submit(2)), id="a repetition"),
        pytest.param(frame(1, submit(2), version=VERSION + 1), id="another version"),
        pytest.param(b"\xc1 no frame at all", id="garbage"),
    ],
)
async def test_an_engine_drops_a_router_that_is_not_the_one_it_was(second: bytes) -> None:
    ear = Ear()
    with engine_end(ear) as engine:
        async with raw_router(engine) as router:
            await router.send(frame(0, submit(1)))
            await router.send(second)
            await ear.until(lambda: ear.lost)
            assert ear.heard == [submit(1)]
            assert not engine._routers


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (EngineFrame(VERSION, 2, Load()), f"frame 2 of version {VERSION} instead of 1"),
        (EngineFrame(VERSION + 1, 1, Load()), f"frame 1 of version {VERSION + 1} instead of 1"),
        ("garbage", "sent a frame that is not one"),
        (EngineFrame(VERSION, 1, Load(), goodbye=True), "said goodbye"),
    ],
)
async def test_a_router_drops_an_engine_that_is_not_the_one_it_was(second: Any, reason: str) -> None:
    ear = Ear()
    engine_key, secret_key = zmq.curve_keypair()
    with zmq.asyncio.Context() as context, context.socket(zmq.ROUTER) as engine:
        engine.curve_publickey, engine.curve_secretkey, engine.curve_server = engine_key, secret_key, True
        engine.linger = 0
        port = engine.bind_to_random_port("tcp://127.0.0.1")
        keys = zmq.curve_keypair()
        router = RouterEnd(
            address=f"tcp://127.0.0.1:{port}",
            engine_key=engine_key,
            keys=keys,
            on_frame=ear.hear,
            on_lost=ear.lose,
        )
        identity, _ = await asyncio.wait_for(engine.recv_multipart(), 5.0)
        for said in (EngineFrame(VERSION, 0, Load(slots=1)), second):
            await engine.send_multipart([identity, msgspec.msgpack.encode(said)])
        await ear.until(lambda: ear.lost)
        assert reason in ear.lost[0][0]
        assert not router.alive
        assert ear.heard[0] == EngineFrame(VERSION, 0, Load(slots=1))


async def test_a_goodbye_brings_the_last_answers_with_it() -> None:
    ear = Ear()
    with ExitStack() as stack:
        with engine_end(Ear()) as engine:
            stack.enter_context(router_end(ear, engine))
            await ear.until(lambda: ear.heard)
            (peer,) = engine._routers
            engine.say(peer, Delta(1, 0, 0, "end", [1], "stop"))
        await ear.until(lambda: ear.lost)
        assert [delta.text for frame in ear.frames for delta in frame.deltas] == ["end"]
        assert ear.lost[0][0] == "said goodbye"


async def test_closing_takes_no_longer_when_a_router_leaves_at_the_same_time() -> None:
    """libzmq's own end of a context hangs in about one of two hundred such cases."""
    for number in range(30):
        ear = Ear()
        with engine_end(ear) as engine:
            async with raw_router(engine) as router:
                await router.send(frame(0, Cancel(0)))
                await ear.until(lambda ear=ear: ear.heard)
                if number % 3:
                    engine.announce()
                    await turn()
            began_s = monotonic()
        assert monotonic() - began_s < LINGER_S + 0.5
        await turn()  # the authenticator lets its descriptor go


async def test_a_link_that_comes_back_is_a_new_one() -> None:
    engine_ear, ear = Ear(), Ear()
    with engine_end(engine_ear) as engine:
        with router_end(ear, engine) as router:
            router.say(submit(1))
            await engine_ear.until(lambda: len(engine_ear.heard) == 1)
            first = set(engine._routers)
        with router_end(ear, engine) as router:
            router.say(submit(1))
            await engine_ear.until(lambda: len(engine_ear.heard) == 2)
            assert len(set(engine._routers) - first) == 1


async def test_a_router_that_does_not_read_costs_the_engine_no_memory_and_loses_nothing() -> None:
    turns, choices, text = 600, 4, "x" * 4_000
    ear = Ear()
    with engine_end(ear) as engine:
        async with raw_router(engine) as router:
            await router.send(frame(0, submit(1)))
            await ear.until(lambda: ear.heard)
            (peer,) = engine._routers
            for number in range(turns):
                for choice in range(choices):
                    engine.say(peer, Delta(1, 0, choice, f"{number:08}{text}", [number]))
                if number % 100 == 99:
                    await router.send(frame(number // 100 + 1))
                await turn()
            assert len(engine._routers[peer].deltas) <= choices

            frames: list[EngineFrame] = []
            got: dict[int, list[int]] = {choice: [] for choice in range(choices)}
            while min(len(ids) for ids in got.values()) < turns:
                body = await asyncio.wait_for(router.recv(), 5.0)
                frames.append(msgspec.msgpack.decode(body, type=EngineFrame))
                for delta in frames[-1].deltas:
                    got[delta.index].extend(delta.token_ids)
                    numbers = [int(part) for part in delta.text.split(text) if part]
                    assert numbers == delta.token_ids, "text and ids belong together"
    assert got == {choice: list(range(turns)) for choice in range(choices)}
    assert [each.sequence for each in frames] == list(range(len(frames)))
    assert max(len(each.deltas) for each in frames) == choices
    assert len(frames) <= 2 * FRAMES_IN_FLIGHT + KERNEL_BYTES // (choices * len(text))


async def test_a_stopped_peer_is_found_in_time_and_not_before() -> None:
    await asyncio.gather(_stop_an_engine(), _stop_a_router())


async def _stop_an_engine() -> None:
    keys = zmq.curve_keypair()
    ear = Ear()
    with _peer("engine") as process:
        address, engine_key = (await _exchange(process, keys[0].decode())).split()
        router = RouterEnd(
            address=address,
            engine_key=engine_key.encode(),
            keys=keys,
            on_frame=ear.hear,
            on_lost=ear.lose,
        )
        await ear.until(lambda: len(ear.heard) > 2)
        process.send_signal(signal.SIGSTOP)
        stopped_s = monotonic()
        await ear.until(lambda: ear.lost)
        reason, lost_s = ear.lost[0]
        assert "silent for 2." in reason
        assert lost_s - ear.times_s[-1] >= SILENCE_S
        assert lost_s - stopped_s <= FOUND_S
        assert not router.alive


async def test_an_engine_that_is_killed_is_found_at_once_and_what_it_said_is_heard() -> None:
    keys, ear = zmq.curve_keypair(), Ear()
    with _peer("engine") as process:
        address, engine_key = (await _exchange(process, keys[0].decode())).split()
        router = RouterEnd(
            address=address, engine_key=engine_key.encode(), keys=keys, on_frame=ear.hear, on_lost=ear.lose
        )
        await ear.until(lambda: len(ear.heard) > 2)
        process.kill()
        killed_s = monotonic()
        await ear.until(lambda: ear.lost)
        reason, lost_s = ear.lost[0]
        assert reason == "closed the connection"
        assert lost_s - killed_s < SILENCE_S / 2
        assert not router.alive
        assert len(ear.lost) == 1


async def _stop_a_router() -> None:
    ear = Ear()
    with engine_end(ear) as engine, _peer("router", engine.address, engine.public_key.decode()) as process:
        engine.allow((await _exchange(process, None)).encode())
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        await ear.until(lambda: ear.heard)
        process.send_signal(signal.SIGSTOP)
        stopped_s = monotonic()
        await ear.until(lambda: ear.lost)
        assert SILENCE_S - BEAT_S <= ear.lost[0][1] - stopped_s <= FOUND_S
        assert not engine._routers


@contextmanager
def _peer(*arguments: str) -> Iterator[Popen[str]]:
    command = [sys.executable, "-m", "tests.deployments.link_peer", *arguments]
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True) as process:
        try:
            yield process
        finally:
            os.kill(process.pid, signal.SIGKILL)


async def _exchange(process: Popen[str], said: str | None) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    if said is not None:
        process.stdin.write(said + "\n")
        process.stdin.flush()
    return (await asyncio.to_thread(process.stdout.readline)).strip()


deltas = st.builds(
    Delta,
    request=st.just(1),
    attempt=st.just(0),
    index=st.just(0),
    text=st.text(max_size=5),
    token_ids=st.lists(st.integers(0, 9), max_size=3),
    cached_tokens=st.integers(0, 9),
)


@given(st.lists(deltas, min_size=1), st.sampled_from([None, "stop", "length"]))
def test_merged_deltas_equal_their_concatenation(parts: list[Delta], finish: str | None) -> None:
    parts[-1].finish, parts[-1].stop = finish, "x" if finish == "stop" else None
    text = "".join(part.text for part in parts)
    ids = [token for part in parts for token in part.token_ids]
    whole = Delta(1, 0, 0, text, ids, finish, parts[-1].stop, parts[-1].cached_tokens)
    first, *later = parts
    for part in later:
        first.merge(part)
    assert first == whole
