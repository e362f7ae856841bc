"""What becomes of limits while the ledger can't be reached, and of what a router had when it is killed?"""

import asyncio
from collections.abc import Awaitable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any

import pytest

import routing
from deployments import tolls
from deployments.openai_wire import ApiError
from deployments.sender import Sender
from deployments.tolls import Toll, Tolls
from deployments.usage_line import Line
from tests.deployments.fake_engine import FakeEngine
from tests.deployments.http_served import MODEL, serve
from tests.deployments.ledger_here import At, Here, Spendings, tenant, toll_keeper
from tests.deployments.test_tolls import ask

pytestmark = pytest.mark.anyio


async def test_while_the_ledger_is_lost_what_was_lent_is_used_and_then_503_is_told(tokenizer_folder: Path) -> None:
    alpha, ledger, said = tenant(requests_per_min=100), Here(), list[str]()
    async with serve(tokenizer_folder, FakeEngine(), tenants=[alpha], tolls=toll_keeper(alpha, ledger, said)) as served:
        for _ in range(5):
            assert (await ask(served)).status_code == 200
        ledger.lost = True
        codes = [(await ask(served)).status_code for _ in range(30)]
        assert codes[-1] == 503
        answer = await ask(served)
        assert (answer.json()["error"]["code"], answer.headers["retry-after"]) == ("limits_unknown", "2")
        assert any("can't be reached" in line for line in said)
        ledger.lost = False
        assert (await ask(served)).status_code == 200


async def test_what_a_late_ledger_lends_is_there_for_the_next_requests(
    tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha, ledger = tenant(requests_per_min=10), Here(late=asyncio.Event())
    assert ledger.late is not None
    async with serve(tokenizer_folder, FakeEngine(), tenants=[alpha], tolls=toll_keeper(alpha, ledger)) as served:
        with monkeypatch.context() as patience:
            patience.setattr(tolls, "ANSWER_S", 0.01)
            assert [(await ask(served)).status_code for _ in range(5)] == [503] * 5
        ledger.late.set()
        assert [(await ask(served)).status_code for _ in range(11)] == [200] * 10 + [429]


async def test_what_is_lent_to_a_request_that_left_meanwhile_is_there_for_the_next() -> None:
    ledger = Here(late=asyncio.Event())
    assert ledger.late is not None
    keeper = toll_keeper(tenant(requests_per_min=3), ledger)

    async def let_in() -> AbstractContextManager[Toll | None]:
        by = Sender(tenant="alpha")
        return await keeper.admit(by, prompt_tokens=1, answers=1, max_tokens=1, room_tokens=None)

    leaves = asyncio.create_task(let_in())
    while not ledger.asked:
        await asyncio.sleep(0)
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    ledger.late.set()
    for _ in range(3):
        await let_in()
    with pytest.raises(ApiError, match="0 of 3"):
        await let_in()


def of_total(keeper: Tolls, tokens: int) -> Awaitable[AbstractContextManager[Toll | None]]:
    """A request that may take so many."""
    return keeper.admit(Sender(tenant="alpha"), prompt_tokens=tokens - 1, answers=1, max_tokens=1, room_tokens=None)


def used(tokens: int) -> Line:
    return Line(0.0, "alpha", "", MODEL, "", 1, tokens, 0, 0, 0.0)


async def test_what_the_ledger_may_not_have_heard_is_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tolls, "LOOK_S", 0.001)
    monkeypatch.setattr(routing.purse, "IDLE_S", 0.0)
    ledger = At(Here(), "r", forget={"borrow", "settle"})
    said = list[str]()
    keeper = toll_keeper(tenant(budgets=[{"tokens": 200, "per": "total"}]), ledger, said)
    for _ in range(3):
        with pytest.raises(ApiError, match="can't tell"):
            await of_total(keeper, 150)
    ledger.forget = {"settle"}
    with await of_total(keeper, 150) as toll:
        assert toll is not None
        toll.pay(used(tokens=20))
    giving_back = asyncio.ensure_future(keeper.go_on())
    try:
        async with asyncio.timeout(30):
            while not said[3:]:
                await asyncio.sleep(0)
            ledger.forget = set()
            while ledger.ledger.ledger.kept("alpha")["tokens/total"][0] != 20.0:
                await asyncio.sleep(0)
    finally:
        giving_back.cancel()
    assert len(said) == 4, "that it can't be settled is said once"
    await of_total(keeper, 180)


async def test_of_a_router_that_is_killed_a_budget_loses_what_it_spent_alone() -> None:
    spent = dict[str, routing.Spent]()
    here = Here()
    alpha = tenant(budgets=[{"tokens": 200, "per": "total"}])
    dies = Tolls([alpha], At(here, "r"), print, Spendings(spent))
    for _ in range(3):
        with await of_total(dies, 50) as toll:
            assert toll is not None
            toll.pay(used(tokens=10))
    await of_total(dies, 100)
    with pytest.raises(ApiError, match="70 of 200 tokens are left"):
        await of_total(toll_keeper(alpha, At(here, "s")), 170)
    lives = toll_keeper(alpha, At(here, "t"))
    here.ledger.end("r", spent, time())
    await of_total(lives, 170)
    with pytest.raises(ApiError, match="0 of 200 tokens are left"):
        await of_total(lives, 1)


@dataclass
class Watching:
    """The ledger; of what is spent, what was noted when it was asked or told."""

    ledger: At
    spent: dict[str, routing.Spent]
    noted: list[dict[str, float]] = field(default_factory=list)

    async def borrow(self, *told: Any) -> routing.Loan:
        self.noted.append(dict(self.spent["alpha"].amounts))
        return await self.ledger.borrow(*told)

    async def settle(self, *told: Any) -> None:
        self.noted.append(dict(self.spent["alpha"].amounts))
        await self.ledger.settle(*told)


async def test_what_is_spent_is_noted_before_the_ledger_is_asked() -> None:
    spent = dict[str, routing.Spent]()
    watching = Watching(At(Here(), "r"), spent)
    keeper = Tolls([tenant(budgets=[{"tokens": 200, "per": "total"}])], watching, print, Spendings(spent))
    for tokens in (50, 100, 100):
        with await of_total(keeper, tokens) as toll:
            assert toll is not None
            toll.pay(used(tokens=10))
    assert watching.noted == [{"tokens/total": 0.0}, {"tokens/total": 10.0}, {"tokens/total": 20.0}]
