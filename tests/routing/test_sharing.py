"""Do several routers share engines as one would: fairly between tenants, nothing lost, nothing beyond the room?"""

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from routing import Tier
from tests.routing.town import Town

SPANS = pytest.mark.parametrize("span_s", [15, pytest.param(60, marks=pytest.mark.slow)])


def backlogged(town: Town, tenant: str, routers: list[int], *, depth: int, prompt: int = 100, output: int = 10) -> None:
    """Keeps so many requests of a tenant waiting in each of the routers."""
    for router in routers:
        for _ in range(depth - town.router_of[router].queue.waits(tenant)):
            town.enter(router, prompt=prompt, output=output, tenant=tenant)


@SPANS
def test_a_tenant_that_sends_ten_times_as_much_gets_the_same_tokens(span_s: float) -> None:
    town = Town()
    # Two engines read 40,000 prompt tokens a second: "one" asks for 26,000 of them, "ten" for 260,000.
    waiting = {"one": 0.0, "ten": 0.0}

    def arrive() -> None:
        for tenant, per_tick in (("one", 3.25), ("ten", 32.5)):
            waiting[tenant] += per_tick
            while waiting[tenant] >= 1:
                waiting[tenant] -= 1
                town.enter(len(town.entered) % 2, tenant=tenant)

    town.run(span_s, arrive)
    one, ten = town.served["one"], town.served["ten"]
    assert abs(one / (one + ten) - 0.5) <= 0.025, (one, ten)


@SPANS
def test_weights_of_three_to_one_give_three_to_one(span_s: float) -> None:
    town = Town(weights={"three": 3.0})

    def arrive() -> None:
        backlogged(town, "three", [0, 1], depth=60)
        backlogged(town, "one", [0, 1], depth=60)

    town.run(span_s, arrive)
    assert 2.85 <= town.served["three"] / town.served["one"] <= 3.15


@SPANS
def test_a_tenant_of_one_router_gets_as_much_as_one_of_three(span_s: float) -> None:
    town = Town(routers=3)

    def arrive() -> None:
        backlogged(town, "everywhere", [0, 1, 2], depth=60)
        backlogged(town, "here", [2], depth=120)

    town.run(span_s, arrive)
    here, everywhere = town.served["here"], town.served["everywhere"]
    assert abs(here / (here + everywhere) - 0.5) <= 0.025, (here, everywhere)


shapes = st.lists(
    st.tuples(
        st.integers(0, 2), st.sampled_from("ABC"), st.integers(1, 3000), st.integers(1, 8), st.sampled_from(Tier)
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(shapes, st.integers(1, 3), st.integers(1, 3), st.integers(1, 12))
def test_nothing_is_lost_doubled_starved_or_sent_beyond_the_room(
    what: list[tuple[int, str, int, int, Tier]], routers: int, engines: int, slots: int
) -> None:
    town = Town(routers=routers, engines=engines, slots=slots, step_tokens=500)
    for router, tenant, prompt, output, tier in what:
        town.enter(router % routers, prompt=prompt, output=output, tenant=tenant, tier=tier)
        town.tick()
    for _ in range(16000):
        if not town.unfinished():
            break
        town.tick()
    assert not town.unfinished(), "somebody starves"
    assert set(town.begun.values()) == {1} == set(town.ended.values())
    for engine in town.engine_of:
        step, large = engine.step_tokens, engine.largest
        assert engine.most_unread <= (2 * step if large <= 2 * step else step + large)


@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(50, 1500),
    st.integers(50, 1500),
    st.integers(1, 20),
)
@example(1, 2, 50, 825, 1)
def test_the_service_of_two_waiting_tenants_is_never_further_apart_than_two_requests_and_a_batch(
    routers: int, engines: int, prompt_a: int, prompt_b: int, output: int
) -> None:
    town = Town(routers=routers, engines=engines, slots=32, step_tokens=1000)
    everywhere = list(range(routers))
    largest = max(prompt_a, prompt_b) + output
    batch_tokens = engines * (2 * town.step_tokens + town.slots * output)
    start, gaps, depth = 0, [], engines * town.slots  # more than leave at once: both wait all the time
    for tick in range(1000):
        backlogged(town, "A", everywhere, depth=depth, prompt=prompt_a, output=output)
        backlogged(town, "B", everywhere, depth=depth, prompt=prompt_b, output=output)
        town.tick()
        if tick == 80:
            start = town.served["A"] - town.served["B"]
        if tick > 80:
            gaps.append(town.served["A"] - town.served["B"] - start)
    assert max(gaps) - min(gaps) <= 2 * largest + batch_tokens
