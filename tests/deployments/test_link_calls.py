"""Do calls and the parts of their answers travel like everything else, and wait without growing?"""

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.frames import BEAT_S, Call, Delta, EngineFrame, Part, Took
from tests.deployments.link_ends import Ear, engine_end, frame, raw_router, router_end, submit

pytestmark = pytest.mark.anyio

CALL = Call(2, 0, "POST", "/tokenize", [("accept", "*/*")], b"\x00\xff", 9)


def part(body: bytes, more: bool = True, tokens: int = 0, **first: object) -> Part:
    told = {"status": 200, "headers": [("a", "b")]} if first else {}
    return Part(2, 0, bytearray(body), more, **told, output_tokens=tokens)


async def test_calls_submits_parts_and_deltas_of_one_turn_are_one_frame() -> None:
    engine_ear, ear = Ear(), Ear()
    with engine_end(engine_ear) as engine, router_end(ear, engine) as router:
        router.say(submit(1))
        router.say(CALL)
        router.say(Took(2, 70_000))
        await engine_ear.until(lambda: len(engine_ear.heard) == 3)
        assert engine_ear.heard == [submit(1), CALL, Took(2, 70_000)]
        (peer,) = engine._routers
        engine.say(peer, Delta(1, 0, 0, "x", [1]))
        engine.say(peer, part(b"a", first=True))
        engine.say(peer, part(b"b", more=False, tokens=3))
        await ear.until(lambda: ear.frames)
        engine.say(b"nobody", part(b"x"))
        await engine.room(b"nobody")
        (got,) = ear.frames
        assert got.load.received == 2, "what takes credit"
        assert got.deltas == [Delta(1, 0, 0, "x", [1])]
        assert got.parts == [Part(2, 0, bytearray(b"ab"), False, 200, [("a", "b")], 0, 3)]


async def test_there_is_no_room_while_a_router_does_not_read() -> None:
    ear = Ear()
    with engine_end(ear) as engine:
        async with raw_router(engine) as router:
            await router.send(frame(0, CALL))
            await ear.until(lambda: ear.heard)
            (peer,) = engine._routers
            said = 0
            async with asyncio.timeout(5.0):
                while not engine._routers[peer].full:
                    engine.say(peer, part(b"x" * 100_000))
                    said += 100_000
                    await asyncio.sleep(0)
            waiting = asyncio.ensure_future(engine.room(peer))
            await asyncio.wait([waiting], timeout=BEAT_S / 4)
            assert not waiting.done()
            assert len(engine._routers[peer].parts) == 1, "what waits of one call is joined"
            read = 0
            while read < said:
                body = await asyncio.wait_for(router.recv(), 5.0)
                read += sum(len(part.body) for part in msgspec.msgpack.decode(body, type=EngineFrame).parts)
            await asyncio.wait_for(waiting, 1.0)
            assert read == said


@given(st.lists(st.tuples(st.binary(max_size=5), st.integers(0, 9)), min_size=1))
def test_merged_parts_equal_their_concatenation(pieces: list[tuple[bytes, int]]) -> None:
    parts = [part(body, tokens=tokens) for body, tokens in pieces]
    parts[-1].more = False
    first, *later = parts
    for piece in later:
        first.merge(piece)
    assert first == part(b"".join(body for body, _ in pieces), more=False, tokens=sum(tokens for _, tokens in pieces))
