"""Does the lane keep its promises, whatever its clients and engines do?"""

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from deployments.frames import Delta, Submit
from deployments.lane import RETRIES
from deployments.ticket import Ticket, choices
from tests.deployments.lane_ends import Engine, check, make_door, turn

QUEUED = 8
ENGINES = 3
TEXT = "abc"

number = st.integers(0, 20)
actions = st.lists(
    st.tuples(st.sampled_from(["enter", "enter", "leave", "read", "step", "step", "die", "drain"]), number, number),
    max_size=50,
)


@given(actions)
def test_nothing_is_lost_doubled_or_sent_beyond_its_credit(story: list[tuple[str, int, int]]) -> None:
    asyncio.run(_play(story))


async def _play(story: list[tuple[str, int, int]]) -> None:
    play = Play()
    for kind, what, more in story:
        await getattr(play, kind)(what, more)
        await turn()
        play.check()
    await play.finish()
    for ticket in play.door.tickets:
        if not ticket.gone and ticket.failure is None:
            assert play.text(ticket) == {index: TEXT for index in range(choices(ticket.order))}


class Play:
    """A lane with three small engines. Each choice of each answer is `abc`, a letter a step."""

    def __init__(self) -> None:
        self.door = make_door(max_queued_requests=QUEUED)
        self.engines = [self._engine(str(place)) for place in range(ENGINES)]
        self.steps: Counter[tuple[str, int]] = Counter()
        self.read_texts: dict[tuple[int, int], str] = {}

    def _engine(self, name: str) -> Engine:
        return Engine(self.door.lane, slots=2, tokens=50, name=name)

    def check(self) -> None:
        check(self.door.lane, self.door.tickets)
        assert all(engine.most <= engine.slots for engine in self.engines)
        for ticket in self.door.tickets:
            if ticket.failure is not None:
                assert ticket.so_far is None or ticket.losses == RETRIES + 1, "given up too early"
                assert len(self.door.log) >= ticket.losses

    def text(self, ticket: Ticket) -> dict[int, str]:
        """What its reader has read of each choice."""
        number = ticket.value.id
        return {index: text for (request, index), text in self.read_texts.items() if request == number}

    async def enter(self, tokens: int, more: int) -> None:
        if self.door.lane.queued_requests < QUEUED:
            self.door.enter(3 * tokens + 1, n=1 + more % 2)

    async def leave(self, which: int, _: int) -> None:
        if self.door.tickets:
            self.door.lane.leave(self.door.tickets[which % len(self.door.tickets)])

    async def read(self, which: int, _: int) -> None:
        if self.door.tickets:
            self._read(self.door.tickets[which % len(self.door.tickets)])

    def _read(self, ticket: Ticket) -> None:
        if ticket.pending:
            for delta in ticket.take():
                key = (delta.request, delta.index)
                self.read_texts[key] = self.read_texts.get(key, "") + delta.text

    async def step(self, which: int, _: int) -> None:
        engine = self.engines[which % ENGINES]
        deltas = []
        for number, submit in engine.running.items():
            assert isinstance(submit, Submit)
            assert submit.said_ids == list(range(submit.sent_characters))
            made = submit.sent_characters + self.steps[engine.name, number]
            self.steps[engine.name, number] += 1
            finish = "stop" if made + 1 == len(TEXT) else None
            for index in range(submit.sampling["n"]):
                deltas.append(Delta(number, submit.attempt, index, TEXT[made], [made], finish))
        await engine.frame(*deltas)

    async def die(self, which: int, _: int) -> None:
        await self.engines[which % ENGINES].die()
        self.engines[which % ENGINES] = self._engine(f"{which % ENGINES} after {len(self.door.log)}")

    async def drain(self, which: int, _: int) -> None:
        engine = self.engines[which % ENGINES]
        engine.draining = not engine.draining

    async def finish(self) -> None:
        """Everything that is still open comes to its end."""
        for engine in self.engines:
            engine.draining = False
        for _ in range(len(TEXT) * (len(self.door.tickets) + 1)):
            for place in range(ENGINES):
                await self.step(place, 0)
        self.check()
        assert self.door.lane.open_requests() == 0
        for ticket in self.door.tickets:
            self._read(ticket)
