"""Do limits hold, and is nothing of them lost, whichever question, answer or process is lost, and when?"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing import Ledger, Limit, Period, Spent
from routing.allowance import DAY_S, MINUTE_S
from routing.ledger import LATE_S
from tests.routing.purse_router import Lost, Router, cost

MINUTE = Limit(unit="tokens", amount=20_000)
TOTAL = Limit(unit="tokens", amount=400_000, period=Period.TOTAL)
DAY = Limit(unit="gpu_s", amount=60, period=Period.DAY)
LIMITS = [MINUTE, TOTAL, DAY]
MIDNIGHT_S = 10 * DAY_S
EPSILON = 1e-6


@dataclass
class Wire:
    """The ledger, as routers reach it, or not."""

    lost: Iterator[str]
    """`question`, `answer` or nothing, for each question."""
    ledger: Ledger = field(default_factory=Ledger)
    away: bool = False
    lent: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)
    """As a store keeps it."""

    def borrow(self, *told: Any) -> Any:
        return self._ask(lambda: self.ledger.borrow(*told))

    def settle(self, *told: Any) -> Any:
        return self._ask(lambda: self.ledger.settle(*told))

    def begin_anew(self) -> None:
        self.lent |= {("a", name): value for name, value in self.ledger.kept("a").items()}
        minutes = list(self.ledger.minutes(0.0))
        loans = list(self.ledger.loans())
        self.ledger = Ledger(self.lent, {tuple(key): (had, at_s) for *key, had, at_s in loans if key[2] != MINUTE.name})
        for tenant, name, at_s, amount in minutes:
            self.ledger.remember("", tenant, {name: amount}, {}, at_s)
        for router, tenant, name, had, at_s in loans:
            if name == MINUTE.name:
                self.ledger.remember(router, tenant, {}, {name: had}, at_s)

    def _ask(self, ask: Callable[[], Any]) -> Any:
        lost = next(self.lost, "")
        if self.away or lost == "question":
            raise Lost
        answer = ask()
        if lost == "answer":
            raise Lost
        return answer


@dataclass
class Fleet:
    """Two routers and a ledger."""

    wire: Wire
    now_s: float = MIDNIGHT_S - 60.0
    routers: list[Router] = field(default_factory=list)
    began: int = 0
    dead: list[Router] = field(default_factory=list)
    paid: list[tuple[float, int, float]] = field(default_factory=list)
    """Of each request that was paid: when it came, tokens and GPU-seconds."""

    def __post_init__(self) -> None:
        self.routers = [self.begun(), self.begun()]

    def begun(self) -> Router:
        self.began += 1
        return Router(cast(Ledger, self.wire), LIMITS, f"router {self.began}")

    def happens(self, what: str, place: int, most: int, share: float, lasts_s: float) -> None:
        match what:
            case "router dies":
                self.dead.append(self.routers[place])
                self.routers[place] = self.begun()
            case "ledger dies":
                self.wire.begin_anew()
            case "the ledger goes":
                self.wire.away = True
            case "the ledger comes":
                self.wire.away = False
            case "the dead are buried":
                self.bury()
            case _:
                with suppress(Lost):
                    asked = cost(most, gpu_s=most / 1000)
                    self.routers[place].come(asked, int(most * share), most * share / 1000, lasts_s, self.now_s)

    def passes(self, seconds: float) -> None:
        """Requests that are over are paid, and routers give back."""
        self.now_s += seconds
        for router in self.routers:
            for end_s, _, tokens, gpu_s, let_in_s in router.open:
                if end_s <= self.now_s:
                    self.paid.append((let_in_s, tokens, gpu_s))
            router.end(self.now_s)
            with suppress(Lost):
                router.give_back(self.now_s)

    def bury(self) -> None:
        """Twice, as who does it may be killed meanwhile."""
        for router in self.dead:
            for _ in range(2):
                self.wire.ledger.end(router.name, {"a": router.noted} if router.noted else {}, self.now_s)
        self.dead.clear()

    def used(self) -> dict[str, float]:
        """Of each limit: in the last minute, in all, and of this day."""
        begin_s = self.now_s // DAY_S * DAY_S
        return {
            MINUTE.name: sum(tokens for let_in_s, tokens, _ in self.paid if let_in_s > self.now_s - MINUTE_S),
            TOTAL.name: sum(tokens for _, tokens, _ in self.paid),
            DAY.name: sum(gpu_s for let_in_s, _, gpu_s in self.paid if let_in_s >= begin_s),
        }


HAPPENS = (
    *["a request comes"] * 12,
    *["router dies", "the dead are buried"] * 2,
    *["ledger dies", "the ledger goes", "the ledger comes", "the ledger comes"],
)


@given(st.integers(0, 1 << 32))
def test_no_limit_is_exceeded_and_no_budget_is_smaller_in_the_end(seed: int) -> None:
    draw = Random(seed)
    lost = (draw.choice(["", "", "", "question", "answer"]) for _ in range(10_000))
    fleet = Fleet(Wire(lost if draw.random() < 0.5 else iter(())))
    dearest, longest_s = draw.choice([500, 3000, 9000]), draw.choice([1.0, 30.0, 55.0])
    for _ in range(80):
        fleet.passes(draw.uniform(0.0, draw.choice([0.5, 2.0, 5.0])))
        asked = draw.randrange(1, dearest), draw.random() ** 2, draw.uniform(0.5, longest_s)
        fleet.happens(draw.choice(HAPPENS), draw.randrange(2), *asked)
        for limit in LIMITS:
            assert fleet.used()[limit.name] <= limit.amount * (1.01 if limit is MINUTE else 1 + EPSILON)
    fleet.wire.lost, fleet.wire.away = iter(()), False
    fleet.bury()
    for _ in range(40):
        fleet.passes(2.0)
    for limit in (TOTAL, DAY):
        left = fleet.wire.ledger.borrow("r", "a", LIMITS, {limit.name: 1e9}, {}, fleet.now_s).left
        assert left == pytest.approx(limit.amount - fleet.used()[limit.name], abs=1e-6)


def test_what_an_unknown_router_says_to_have_had_frees_and_takes_nothing() -> None:
    ledger = Ledger()
    ledger.borrow("r", "a", [TOTAL], {TOTAL.name: 10_000}, {}, 0.0)
    for had in (500.0, 400.0, 700.0):
        ledger.settle("s", "a", [TOTAL], {TOTAL.name: had}, 1.0, 1.0)
    assert ledger.borrow("s", "a", [TOTAL], {TOTAL.name: 1e9}, {}, 2.0).left == TOTAL.amount - 10_000 - 200


def test_a_loan_that_was_lost_in_a_period_that_is_over_takes_nothing_from_the_next() -> None:
    ledger, had, both = Ledger(), {DAY.name: 0.0, MINUTE.name: 0.0}, [DAY, MINUTE]
    ledger.settle("s", "a", both, had, DAY_S - 110.0, DAY_S - 110.0)
    ledger.borrow("r", "a", both, {DAY.name: 30, MINUTE.name: 30}, {}, DAY_S - 100.0)
    ledger.borrow("s", "a", both, {DAY.name: 10, MINUTE.name: 40}, {}, DAY_S + 10.0)
    assert ledger.settle("r", "a", both, had, DAY_S + 11.0, DAY_S + 11.0) == {}
    assert ledger.borrow("s", "a", [DAY], {DAY.name: 51}, {}, DAY_S + 12.0).left == 50
    ledger.borrow("r", "a", [DAY], {DAY.name: 5}, {}, DAY_S + 13.0)
    ledger.end("r", {"a": Spent(DAY_S + 13.0, {DAY.name: 0.0})}, 2 * DAY_S + 1.0)
    assert ledger.borrow("s", "a", [DAY], {DAY.name: 60}, {}, 2 * DAY_S + 2.0).short is None


def test_a_router_that_noted_nothing_since_midnight_takes_nothing_back_from_the_day() -> None:
    ledger = Ledger()
    ledger.borrow("r", "a", [DAY], {DAY.name: 20}, {}, DAY_S - 1.0)
    ledger.borrow("s", "a", [DAY], {DAY.name: 55}, {}, DAY_S + 1.0)
    ledger.settle("r", "a", [DAY], {DAY.name: 20.0}, DAY_S + 2.0, DAY_S + 2.0)
    ledger.end("r", {"a": Spent(DAY_S - 1.0, {DAY.name: 0.0})}, DAY_S + 3.0)
    assert ledger.borrow("s", "a", [DAY], {DAY.name: 6}, {}, DAY_S + 4.0).left == 5


def test_what_is_given_back_late_frees_nothing_of_a_minute() -> None:
    ledger = Ledger()
    ledger.borrow("r", "a", [MINUTE], {MINUTE.name: 6000}, {}, 0.0)
    ledger.settle("r", "a", [MINUTE], {MINUTE.name: 6000}, 30.0, 30.0)
    ledger.borrow("s", "a", [MINUTE], {MINUTE.name: 14_000}, {}, 40.0)
    assert ledger.settle("r", "a", [MINUTE], {MINUTE.name: 0.0}, 50.0, 50.0 + LATE_S + 1.0) == {}
    assert ledger.borrow("s", "a", [MINUTE], {MINUTE.name: 1e9}, {}, 70.0).left == 6000


def test_while_the_ledger_is_away_what_is_given_back_of_a_minute_is_lost() -> None:
    wire = Wire(iter(()))
    one, other = (Router(cast(Ledger, wire), [MINUTE], name) for name in "rs")
    for number in range(6):
        assert one.come(cost(1000), 50, 0.0, 50.0, float(number))
    assert other.come(cost(13_000), 13_000, 0.0, 1.0, 40.0)
    for step in range(45, 80):
        wire.away = 50 <= step < 75
        for router in (one, other):
            router.end(float(step))
            with suppress(Lost):
                router.give_back(float(step))
    assert wire.ledger.borrow("s", "a", [MINUTE], {MINUTE.name: 1e9}, {}, 80.0).left == 7000


def test_routers_that_are_gone_are_forgotten_with_their_minutes_and_days() -> None:
    ledger = Ledger()
    for number in range(1000):
        now_s, name = 1000.0 * number, f"router {number}"
        ledger.settle(name, "a", [MINUTE, DAY], {MINUTE.name: 0.0, DAY.name: 0.0}, now_s, now_s)
    assert len(list(ledger.loans())) <= DAY_S / 1000.0 + 2
    ledger.settle("r", "a", [MINUTE], {MINUTE.name: 0.0}, 20 * DAY_S, 20 * DAY_S)
    assert len(list(ledger.loans())) == 1
