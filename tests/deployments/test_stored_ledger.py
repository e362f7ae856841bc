"""Is a ledger that ends and begins again, at any moment, like one that never did?"""

from pathlib import Path
from random import Random
from typing import Any

import pytest

import routing
from deployments import stored_ledger
from deployments.fleet import sqlite_url
from deployments.ledger_actor import LedgerActor
from deployments.store import Store

MINUTE = routing.Limit(unit="tokens", amount=3000)
DAY = routing.Limit(unit="gpu_s", amount=200, period=routing.Period.DAY)
TOTAL = routing.Limit(unit="tokens", amount=4000, period=routing.Period.TOTAL)
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
                    "who asks", tenant, limits, {limit.name: 0.0 for limit in limits}, {limit.name: 1e9}, {}
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
                loan = said.ask("borrow", router, tenant, limits, dict(mine), needs, {})
                if draw.random() < 0.7:
                    mine.update({name: mine[name] + amount for name, amount in loan.amounts.items()})
            case "give back":
                mine.update({name: amount - draw.uniform(-5.0, 30.0) for name, amount in mine.items() if amount})
                said.ask("settle", router, tenant, limits, dict(mine))
            case "router ends":
                gone = {of: had.pop((router, of)) for of in OF_TENANT}
                spent = {of: {name: draw.uniform(0.0, 1.0) * lent for name, lent in gone[of].items()} for of in gone}
                said.ask("end", router, spent)
                had |= begun(f"r{step}")
            case _:
                said.end()
        assert [one for one, _ in said.left()] == pytest.approx([other for _, other in said.left()])


def test_the_store_forgets_a_router_that_is_gone(opened: Store) -> None:
    ledger = stored_ledger.ledger(opened)
    for router, amount in (("r", 30.0), ("s", 40.0)):
        ledger.borrow(router, "alpha", [TOTAL], {TOTAL.name: amount}, {}, 10.0)
        kept = ledger.kept("alpha"), router, ledger.had(router, "alpha", [TOTAL.name])
        stored_ledger.keep(opened, "alpha", *kept)
    assert {loan[0] for loan in stored_ledger.ledger(opened).loans()} == {"r", "s"}
    ledger.end("r", {"alpha": {TOTAL.name: 10.0}}, 20.0)
    stored_ledger.end(opened, "r", {"alpha": ledger.kept("alpha")})
    again = stored_ledger.ledger(opened)
    assert list(again.loans()) == [("s", "alpha", TOTAL.name, 40.0, 10.0)]
    assert again.borrow("s", "alpha", [TOTAL], {TOTAL.name: 1e9}, {}, 20.0).left == 4000 - 50
