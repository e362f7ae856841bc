"""Do limits hold over several routers that borrow from one ledger: minutes to a percent, budgets to the token?"""

from collections import deque
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing import Budget, Ledger, Limit, Minute, Period
from routing.allowance import DAY_S, MINUTE_S, SLOT_S, bounds_s
from tests.routing.purse_router import Router, cost

REQUESTS, TOKENS = Limit(unit="requests", amount=600), Limit(unit="tokens", amount=60_000)
BUDGET = Limit(unit="tokens", amount=50_000, period=Period.TOTAL)
GPU = Limit(unit="gpu_s", amount=100, period=Period.DAY)
TOTAL_GPU = Limit(unit="gpu_s", amount=50, period=Period.TOTAL)
EPSILON = 1e-6


# Minutes and periods


@given(st.floats(1, 1e6), st.lists(st.tuples(st.floats(0, 20), st.floats(0.1, 1e5)), max_size=50))
def test_no_minute_holds_more_than_its_limit_whatever_is_asked(limit: float, asked: list[tuple[float, float]]) -> None:
    minute, now_s, lent = Minute(limit), 0.0, deque[tuple[float, float]]()
    for after_s, amount in asked:
        now_s += after_s
        if amount <= minute.left(now_s):
            minute.move(amount, now_s)
            lent.append((now_s, amount))
        assert sum(had for at_s, had in lent if at_s > now_s - MINUTE_S) <= limit * (1 + EPSILON)


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0.1, 60)), max_size=30), st.floats(1, 100))
def test_after_the_time_told_there_is_enough(asked: list[tuple[float, float]], wanted: float) -> None:
    minute, now_s = Minute(100.0), 0.0
    for after_s, amount in asked:
        now_s += after_s
        minute.move(min(amount, minute.left(now_s)), now_s)
    wait_s = minute.wait_s(wanted, now_s)
    assert wait_s <= MINUTE_S + SLOT_S
    assert minute.left(now_s + wait_s + EPSILON) >= wanted - EPSILON
    assert minute.wait_s(101.0, now_s) == inf


def test_what_is_given_back_is_there_again() -> None:
    minute = Minute(10.0)
    minute.move(6.0, 0.0)
    minute.move(4.0, 30.0)
    assert minute.left(30.0) == 0.0
    minute.move(-7.0, 31.0)
    assert minute.left(31.0) == 7.0
    assert minute.left(70.0) == 7.0, "what is left of what was lent is of the latest"
    assert minute.left(91.0) == 10.0


def test_days_and_months_begin_and_end_by_utc() -> None:
    begin_s, end_s = bounds_s(Period.MONTH, 1_735_689_599.0)  # the last second of 2024
    assert (begin_s, end_s) == (1_733_011_200.0, 1_735_689_600.0)
    assert bounds_s(Period.MONTH, end_s)[0] == end_s
    assert bounds_s(Period.DAY, 100_000.0) == (DAY_S, 2 * DAY_S)
    assert bounds_s(Period.TOTAL, 5.0) == (0.0, inf)


def test_a_new_period_begins_with_the_whole_budget() -> None:
    budget = Budget(10.0, Period.DAY)
    budget.move(8.0, 100.0)
    assert (budget.left(100.0), budget.wait_s(5.0, 100.0), budget.wait_s(11.0, 100.0)) == (2.0, DAY_S - 100.0, inf)
    assert budget.left(DAY_S + 1.0) == 10.0


def test_a_new_ledger_knows_what_a_former_one_kept_of_budgets() -> None:
    former = Ledger()
    former.borrow("r", "a", [BUDGET, GPU, REQUESTS], {BUDGET.name: 1000, GPU.name: 5, REQUESTS.name: 3}, {}, 100.0)
    kept = {("a", name): value for name, value in former.kept("a").items()}
    assert {name for _, name in kept} == {BUDGET.name, GPU.name}
    again = Ledger(kept)
    assert again.borrow("r", "a", [BUDGET], {BUDGET.name: 49_001}, {}, 200.0).left == 49_000
    assert again.borrow("r", "a", [GPU], {GPU.name: 96}, {}, 200.0).left == 95
    assert again.borrow("r", "a", [GPU], {GPU.name: 96}, {}, DAY_S + 1).amounts == {GPU.name: 96}
    assert again.borrow("r", "b", [BUDGET], {BUDGET.name: 50_000}, {}, 200.0).short is None


def test_a_limit_that_is_changed_holds_for_what_is_asked_next() -> None:
    ledger = Ledger()
    ledger.borrow("r", "a", [BUDGET], {BUDGET.name: 40_000}, {}, 0.0)
    smaller = Limit(unit="tokens", amount=30_000, period=Period.TOTAL)
    assert ledger.borrow("r", "a", [smaller], {BUDGET.name: 1}, {}, 0.0).short == BUDGET.name


def test_all_that_is_needed_is_lent_or_nothing() -> None:
    ledger, needs = Ledger(), {REQUESTS.name: 1.0, BUDGET.name: 60_000.0}
    loan = ledger.borrow("r", "a", [REQUESTS, BUDGET], needs, {}, 0.0)
    assert (loan.short, loan.amounts, loan.left, loan.wait_s) == (BUDGET.name, {}, 50_000, inf)
    assert ledger.borrow("r", "a", [REQUESTS], {REQUESTS.name: 600.0}, {}, 0.0).short is None


# Routers with purses


@pytest.mark.parametrize("shares", [(1.0, 1.0), (1.9, 0.1)], ids=["alike", "one has nearly all"])
@pytest.mark.parametrize(("limit", "tokens"), [(REQUESTS, 1), (TOKENS, 100)], ids=["requests", "tokens"])
def test_any_minute_is_exact_to_a_percent_over_two_routers(
    limit: Limit, tokens: int, shares: tuple[float, float]
) -> None:
    """Twice as much comes as may, for four minutes, with pauses."""
    ledger, source = Ledger(), Random(1)
    routers = [Router(ledger, [limit], name) for name in "rs"]
    let_in: list[float] = []
    steps_per_s = 100
    for step in range(240 * steps_per_s):
        now_s = 1000.0 + step / steps_per_s
        for router, share in zip(routers, shares, strict=True):
            router.end(now_s)
            if step % steps_per_s == 0:
                router.give_back(now_s)
            rate = share * 600 / 60 / steps_per_s
            if source.random() < rate and router.come(cost(tokens), tokens, 0.0, 2.0, now_s):
                let_in.append(now_s)
    most, window = 0, deque[float]()
    for at_s in let_in:
        window.append(at_s)
        while window[0] <= at_s - MINUTE_S:
            window.popleft()
        most = max(most, len(window))
    assert most <= 600 * 1.01
    assert sum(1060.0 < at_s <= 1240.0 for at_s in let_in) >= 3 * 600 * 0.99


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 9000), st.floats(0, 1), st.floats(0, 5), st.floats(0, 3)),
        max_size=80,
    )
)
def test_a_budget_is_never_exceeded_while_requests_take_no_more_than_they_may(
    asked: list[tuple[int, int, float, float, float]],
) -> None:
    """Over three routers, of which one is lost with what it holds; what was used is within what was lent."""
    ledger, now_s, used = Ledger(), 1000.0, 0
    limits = [BUDGET, Limit(unit="gpu_s", amount=50, period=Period.TOTAL)]
    routers, gpu_s = [Router(ledger, limits, name) for name in "rst"], 0.0
    for number, (place, most, share, lasts_s, after_s) in enumerate(asked):
        now_s += after_s
        for router in routers:
            router.end(now_s)
            router.give_back(now_s)
        if number == len(asked) // 2:
            routers[0] = Router(ledger, limits, "u")
        tokens, seconds = int(most * share), most * share / 1000
        if routers[place].come(cost(most, gpu_s=most / 1000), tokens, seconds, lasts_s, now_s):
            used, gpu_s = used + tokens, gpu_s + seconds
        assert used <= BUDGET.amount
        assert gpu_s <= 50 * (1 + EPSILON)


def test_a_whole_budget_can_be_used_by_one_router_after_another_gave_back_what_it_held() -> None:
    ledger = Ledger()
    one, other = Router(ledger, [BUDGET]), Router(ledger, [BUDGET], "s")
    assert one.come(cost(100, most=40_000), 100, 0.0, 1.0, 0.0)
    assert not other.come(cost(100, most=20_000), 100, 0.0, 1.0, 0.5)
    one.end(1.0)
    for now_s in (1.5, 3.0, 4.5):
        one.give_back(now_s)
    assert other.come(cost(100, most=49_900), 49_900, 0.0, 1.0, 5.0)
    other.end(6.0)
    assert not other.come(cost(1), 1, 0.0, 1.0, 7.0)


def test_what_cost_more_than_was_thought_is_missing_later() -> None:
    ledger = Ledger()
    router = Router(ledger, [GPU])
    assert router.come(cost(10, gpu_s=10.0), 10, 95.0, 1.0, 0.0)
    router.end(1.0)
    assert not router.come(cost(10, gpu_s=10.0), 10, 1.0, 1.0, 2.0)
    assert router.come(cost(10, gpu_s=5.0), 10, 1.0, 1.0, 2.0)


def test_what_ends_in_another_period_gives_that_nothing_and_costs_it_nothing() -> None:
    ledger = Ledger()
    router = Router(ledger, [GPU])
    assert router.come(cost(10, gpu_s=90.0), 10, 1.0, 10.0, DAY_S - 5.0)
    router.end(DAY_S + 5.0)
    router.give_back(DAY_S + 5.0)
    assert router.come(cost(10, gpu_s=100.0), 10, 1.0, 1.0, DAY_S + 6.0)
    assert not router.come(cost(10, gpu_s=1.0), 10, 1.0, 1.0, DAY_S + 6.0)


def test_a_purse_knows_what_runs_hold() -> None:
    router = Router(Ledger(), [BUDGET])
    router.come(cost(100, most=300), 100, 0.0, 5.0, 0.0)
    assert router.purse.held(BUDGET.name) == 300
    router.end(5.0)
    assert router.purse.held(BUDGET.name) == 0
