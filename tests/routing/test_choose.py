"""Is the chosen replica the one that would answer soonest, all that it is busy with counted in?"""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing import Replica, Request, choose
from routing.replica import DECODE_TOKENS, LOAD_TOKENS

REQUEST = Request(id=1, prompt_tokens=1000, max_output_tokens=16, arrived_s=0.0)


def replica(name: str, *, queued: int = 0, running: int = 0, token_s: float = 1e-4) -> Replica:
    one = Replica(id=name, token_s=token_s)
    one.hear(slots=4, tokens=5000, queued_tokens=queued, running=running)
    return one


def chosen(*replicas: Replica, cached: dict[str, int] | None = None, seed: int = 0) -> str:
    warm = [(one, (cached or {})[one.id]) for one in replicas if one.id in (cached or {})]
    choice = choose(REQUEST, replicas, warm, Random(seed))
    assert choice is not None
    return choice.replica.id


fleets = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 50), st.sampled_from([1e-4, 2e-4, 1e-3]), st.integers(0, 1200)),
    min_size=1,
    max_size=6,
)


@given(fleets, st.integers(0, 9))
def test_no_other_replica_costs_less(shapes: list[tuple[int, int, float, int]], seed: int) -> None:
    replicas = [replica(str(n), queued=q, running=r, token_s=s) for n, (q, r, s, _) in enumerate(shapes)]
    cached = [(replicas[n], tokens) for n, (_, _, _, tokens) in enumerate(shapes) if tokens]
    choice = choose(REQUEST, replicas, cached, Random(seed))
    left = {str(n): max(1, 1000 - tokens) for n, (_, _, _, tokens) in enumerate(shapes)}
    costs, seconds = (
        {one.id: s * (q + left[one.id] + each * r) for one, (q, r, s, _) in zip(replicas, shapes, strict=True)}
        for each in (LOAD_TOKENS, DECODE_TOKENS)
    )
    assert choice is not None
    assert choice.cost_s == costs[choice.replica.id] == min(costs.values())
    assert choice.seconds == seconds[choice.replica.id]
    assert choice.read_tokens == left[choice.replica.id]


def test_what_runs_counts_for_longer_than_what_is_read_now() -> None:
    assert chosen(replica("busy", running=20), replica("reading", queued=300)) == "reading"


def test_a_cached_prefix_is_worth_its_tokens_and_no_more() -> None:
    warm, idle = replica("warm", queued=700), replica("idle")
    assert chosen(warm, idle, cached={"warm": 800}) == "warm"
    assert chosen(warm, idle, cached={"warm": 600}) == "idle"


def test_what_is_read_counts_the_more_the_more_it_costs_who_waits_behind() -> None:
    warm, idle = replica("warm", queued=2000), replica("idle")
    for behind_s, expected in ((0.0, "idle"), (1e-4, "idle"), (3e-4, "warm")):
        choice = choose(REQUEST, [warm, idle], [(warm, 700)], Random(0), behind_s=behind_s)
        assert choice is not None
        assert choice.replica.id == expected
        own_s = 0.1 if expected == "idle" else 0.2 + 0.03
        assert choice.seconds == pytest.approx(own_s)
        assert choice.cost_s == pytest.approx(own_s + behind_s * choice.read_tokens)


def test_a_slow_replica_gets_work_only_once_the_others_have_a_queue() -> None:
    slow, quick = replica("slow", token_s=4e-4), replica("quick", queued=2900)
    assert chosen(slow, quick) == "quick"
    assert chosen(slow, replica("quick", queued=3100)) == "slow"


def test_equal_replicas_are_drawn_by_lot_and_the_same_seed_draws_the_same() -> None:
    equal = [replica(name) for name in "abcd"]
    draws = [chosen(*equal, seed=seed) for seed in range(40)]
    assert set(draws) == set("abcd")
    assert draws == [chosen(*equal, seed=seed) for seed in range(40)]


def test_without_replicas_there_is_no_choice() -> None:
    assert choose(REQUEST, [], [], Random(0)) is None
