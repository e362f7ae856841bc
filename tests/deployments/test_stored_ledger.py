"""Is a ledger that ends and begins again, at any moment, like one that never did?"""

from pathlib import Path
from random import Random
from time import time
from typing import Any

import pytest

import routing
from deployments import stored_ledger
from deployments.fleet import sqlite_url
from deployments.ledger_actor import LedgerActor
from deployments.store import Store, StoreError
from routing.allowance import DAY_S

MINUTE = routing.Limit(unit="tokens", amount=3000)
DAY = routing.Limit(unit="gpu_s", amount=200, period=routing.Period.DAY)
TOTAL = routing.Limit(unit="tokens", amount=4000, period=routing.Period.TOTAL)
NOON_S = 100.5 * DAY_S
OF_TENANT = {"alpha": [MINUTE, TOTAL], "beta": [DAY], "gamma": [MINUTE]}


class Said:
    """What routers say, to a ledger that ends all the time and to one that never does."""

    def __init__(self, url: str) -> None:
        self._url, self.ends, self.stays = url, LedgerActor(url), LedgerActor(None)

    def end(self) -> None:
        self.ends = LedgerActor(self._url)

    def ask(self, method: str, *told: Any) -> Any:
        one, other = getattr(self.ends, method)(*told), getattr(self.stays, method)(*told)
        assert one == pytest.approx(other) if isinstance(one, dict) else True
        return one

    def left(self) -> list[tuple[float, float]]:
        return [
            tuple(
                ledger.borrow(
                    "who asks", tenant, limits, {limit.name: 0.0 for limit in limits}, {limit.name: 1e9}, {}, time()
                ).left
                for ledger in (self.ends, self.stays)
            )
            for tenant, limits in OF_TENANT.items()
            for limit in limits
        ]


def begun(router: str) -> dict[tuple[str, str], dict[str, float]]:
    """What it has had, by tenant and limit."""
    return {(router, tenant): {limit.name: 0.0 for limit in limits} for tenant, limits in OF_TENANT.items()}


@pytest.mark.parametrize("seed", range(5))
def test_it_knows_what_is_lent_and_what_each_router_has_had(tmp_path: Path, seed: int) -> None:
    """Answers are lost too: what a router says it has had is less then than what it was lent."""
    draw, said = Random(seed), Said(sqlite_url(tmp_path / "store.sqlite"))
    had = begun("r") | begun("s") | begun("t")
    for step in range(150):
        (router, tenant), mine = draw.choice(list(had.items()))
        limits = OF_TENANT[tenant]
        match draw.choice(["borrow", "borrow", "give back", "end", "router ends"]):
            case "borrow":
                needs = {limit.name: draw.uniform(0.0, 100.0) for limit in limits}
                loan = said.ask("borrow", router, tenant, limits, dict(mine), needs, {}, time())
                if draw.random() < 0.7:
                    mine.update({name: mine[name] + amount for name, amount in loan.amounts.items()})
            case "give back":
                mine.update({name: amount - draw.uniform(-5.0, 30.0) for name, amount in mine.items() if amount})
                said.ask("settle", router, tenant, limits, dict(mine), time())
            case "router ends":
                gone = {of: had.pop((router, of)) for of in OF_TENANT}
                shares = {of: {name: draw.random() * lent for name, lent in gone[of].items()} for of in gone}
                spent = {of: routing.Spent(time(), amounts) for of, amounts in shares.items()}
                said.ask("end", router, spent)
                had |= begun(f"r{step}")
            case _:
                said.end()
        assert [one for one, _ in said.left()] == pytest.approx([other for _, other in said.left()])


@pytest.fixture
def lent(opened: Store) -> Store:
    """In which routers r and s have 30 and 40 of a budget."""
    ledger = stored_ledger.ledger(opened, NOON_S)
    for router, amount in (("r", 30.0), ("s", 40.0)):
        ledger.borrow(router, "alpha", [TOTAL, DAY], {TOTAL.name: amount, DAY.name: amount}, {}, NOON_S)
        names = [TOTAL.name, DAY.name]
        stored_ledger.keep(opened, "alpha", ledger.kept("alpha"), router, ledger.had(router, "alpha", names))
    return opened


def routers(store: Store, now_s: float) -> list[tuple[str, str]]:
    """And names of the limits of which they are known to have had."""
    return [(router, name) for router, _, name, _, _ in stored_ledger.ledger(store, now_s).loans()]


def test_the_store_forgets_a_router_that_is_gone(lent: Store) -> None:
    ledger = stored_ledger.ledger(lent, NOON_S)
    ledger.end("r", {"alpha": routing.Spent(NOON_S, {TOTAL.name: 10.0})}, NOON_S)
    stored_ledger.end(lent, "r", {"alpha": ledger.kept("alpha")})
    assert {router for router, _ in routers(lent, NOON_S)} == {"s"}
    again = stored_ledger.ledger(lent, NOON_S)
    assert again.borrow("s", "alpha", [TOTAL], {TOTAL.name: 1e9}, {}, NOON_S).left == 4000 - 50


def test_what_was_lent_of_a_day_is_forgotten_on_the_next(lent: Store) -> None:
    assert len(routers(lent, NOON_S + 3600.0)) == 4
    for _ in range(2):
        assert routers(lent, NOON_S + DAY_S) == [("r", TOTAL.name), ("s", TOTAL.name)]


def test_that_a_router_is_gone_is_told_a_store_again_which_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Said(sqlite_url(tmp_path / "store.sqlite"))
    said.ask(
        "borrow", "r", "alpha", OF_TENANT["alpha"], {MINUTE.name: 0.0, TOTAL.name: 0.0}, {TOTAL.name: 60.0}, {}, time()
    )
    gone = "r", {"alpha": routing.Spent(time(), {TOTAL.name: 10.0})}

    def full(*_: object) -> None:
        raise StoreError("full")

    with monkeypatch.context() as patched:
        patched.setattr(stored_ledger, "end", full)
        with pytest.raises(StoreError):
            said.ends.end(*gone)
    said.ends.end(*gone)
    said.end()
    assert said.ends.borrow("s", "alpha", [TOTAL], {TOTAL.name: 0.0}, {TOTAL.name: 1e9}, {}, time()).left == 4000 - 10
