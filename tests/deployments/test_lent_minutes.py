"""Does a new ledger know what its former one lent of minutes, whatever cut that off?"""

import logging
from pathlib import Path
from random import Random

import pytest

from deployments import lent_minutes
from deployments.lent_minutes import Lent, LentMinutes
from routing import Ledger, Limit

REQUESTS, TOKENS = Limit(unit="requests", amount=50), Limit(unit="tokens", amount=3000)
BOTH = [REQUESTS, TOKENS]
BEGIN_S = 1_000_000.0


def recalled(path: Path) -> Ledger:
    ledger, minutes = Ledger(), LentMinutes(path)
    for lent in minutes.recall():
        ledger.remember(lent.router, lent.owner, lent.amounts, lent.had, lent.at_s)
    return ledger


def left(ledger: Ledger, now_s: float) -> dict[str, float]:
    return {limit.name: ledger.borrow("r", "a", BOTH, {limit.name: 1e9}, {}, now_s).left for limit in BOTH}


@pytest.mark.parametrize("seed", range(5))
def test_at_any_time_a_new_ledger_lends_what_the_former_one_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Over ten minutes in which nearly all is lent, and some of it given back."""
    monkeypatch.setattr(lent_minutes, "FULL_LINES", 100)
    draw, now_s, told, path = Random(seed), BEGIN_S, 0, tmp_path / "there" / "lent"
    ledger, minutes, had = Ledger(), LentMinutes(path), {limit.name: 0.0 for limit in BOTH}
    for step in range(1500):
        now_s += draw.uniform(0.0, 0.8)
        if minutes.full:
            minutes.begin(Lent(at_s, owner, {name: lent}) for owner, name, at_s, lent in ledger.minutes(now_s))
        needs = {REQUESTS.name: 1.0, TOKENS.name: float(draw.randrange(1, 150))}
        loan = ledger.borrow("r", "a", BOTH, needs, {TOKENS.name: 20.0}, now_s)
        if loan.amounts:
            had = {name: amount + loan.amounts[name] for name, amount in had.items()}
            minutes.add(Lent(now_s, "a", loan.amounts, "r", had))
            told += 1
        if draw.random() < 0.3:
            had = had | {TOKENS.name: had[TOKENS.name] - draw.uniform(-20.0, 100.0)}
            minutes.add(Lent(now_s, "a", ledger.settle("r", "a", BOTH, had, now_s, now_s), "r", had))
        if step % 100 == 50:
            assert left(recalled(path), now_s) == pytest.approx(left(ledger, now_s))
    assert told > 300
    assert len(path.read_bytes().splitlines()) < 400, "what is over goes"
    minutes.close()


def test_a_line_that_was_cut_off_costs_itself_alone(tmp_path: Path) -> None:
    minutes = LentMinutes(tmp_path / "lent")
    minutes.add(Lent(BEGIN_S, "a", {REQUESTS.name: 3.0}))
    with (tmp_path / "lent").open("ab") as end:
        end.write(b'\n[1000000.5,"a",{"requ')
    minutes.add(Lent(BEGIN_S + 1.0, "a", {REQUESTS.name: 4.0}))
    minutes.close()
    assert left(recalled(tmp_path / "lent"), BEGIN_S + 2.0)[REQUESTS.name] == 50 - 7


def test_a_disk_that_is_full_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    minutes, lent = LentMinutes(tmp_path / "lent"), Lent(BEGIN_S, "a", {REQUESTS.name: 3.0})

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, "ray.serve"):
        patched.setattr(lent_minutes.os, "write", full)
        patched.setattr(Path, "write_bytes", full)
        minutes.begin([lent])
        minutes.add(lent)
        minutes.add(lent)
    assert [record.getMessage() for record in caplog.records] == [
        "a next ledger would not know what is lent of minutes: [Errno 28] No space left on device"
    ]
    minutes.add(lent)
    minutes.close()
    assert left(recalled(tmp_path / "lent"), BEGIN_S)[REQUESTS.name] == 47
