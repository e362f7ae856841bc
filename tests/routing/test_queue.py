"""Is the next request the right one: by tier, fairly between tenants, by deadline, as they came; and none lost?"""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from routing import Queue, Request, Tier


def request(number: int, tenant: str = "a", *, tokens: int = 100, tier: Tier = Tier.STANDARD, **what: float) -> Request:
    arrived_s = what.pop("arrived_s", float(number))
    return Request(
        id=number, prompt_tokens=tokens, max_output_tokens=16, arrived_s=arrived_s, tenant=tenant, tier=tier, **what
    )


def filled(*requests: Request, weights: dict[str, float] | None = None) -> Queue:
    queue = Queue(weights)
    for one in requests:
        queue.add(one)
    return queue


def empty_out(queue: Queue, most: int = 1 << 20) -> list[Request]:
    order: list[Request] = []
    while len(order) < most and (first := queue.first()) is not None:
        queue.leave(first, 0.0)
        order.append(first)
    return order


def test_a_more_urgent_tier_goes_first() -> None:
    queue = filled(request(1, tier=Tier.BATCH), request(2), request(3, tier=Tier.INTERACTIVE))
    assert [one.id for one in empty_out(queue)] == [3, 2, 1]


def test_within_a_tenant_the_sooner_deadline_then_the_earlier_arrival_goes_first() -> None:
    queue = filled(request(1), request(2), request(3, deadline_s=9.0), request(4, deadline_s=5.0))
    assert [one.id for one in empty_out(queue)] == [4, 3, 1, 2]


def test_tenants_take_turns_in_tokens_not_in_requests() -> None:
    small = [request(number, "small", tokens=10) for number in range(300)]
    large = [request(number, "large", tokens=100) for number in range(300, 330)]
    served = Counter[str]()
    for one in empty_out(filled(*small, *large), 110):
        served[one.tenant] += one.prompt_tokens
    assert abs(served["small"] - served["large"]) <= 100


def test_weights_scale_the_turns() -> None:
    requests = [request(number, "ab"[number % 2], tokens=10) for number in range(400)]
    order = empty_out(filled(*requests, weights={"a": 3.0}), 200)
    assert Counter(one.tenant for one in order)["a"] in range(149, 152)


def test_answers_count_too() -> None:
    queue = filled(*[request(number, "ab"[number % 2], tokens=10) for number in range(40)])
    queue.counters.charge("a", 100)
    assert {one.tenant for one in empty_out(queue, 10)} == {"b"}


def test_a_tenant_that_was_idle_has_saved_up_nothing() -> None:
    queue = filled(*[request(number, "busy") for number in range(100)])
    empty_out(queue, 50)
    for number in range(100, 150):
        queue.add(request(number, "back"))
    assert Counter(one.tenant for one in empty_out(queue, 20)) == {"busy": 10, "back": 10}


def test_one_that_comes_back_to_an_empty_queue_has_saved_up_nothing_either() -> None:
    queue = filled(*[request(number, "busy") for number in range(50)])
    empty_out(queue)
    for number in range(100, 200):
        queue.add(request(number, "back" if number % 2 else "busy"))
    assert abs(Counter(one.tenant for one in empty_out(queue, 40))["back"] - 20) <= 1


def test_less_urgent_tiers_get_their_floor_and_no_more() -> None:
    requests = [request(number, tier=Tier(number % 3)) for number in range(3000)]
    order = empty_out(filled(*requests), 1000)
    tiers = Counter(one.tier for one in order)
    assert 0.07 <= tiers[Tier.STANDARD] / 1000 <= 0.11
    assert 0.04 <= tiers[Tier.BATCH] / 1000 <= 0.06


def test_what_is_set_aside_comes_back_to_its_place() -> None:
    queue = filled(request(1), request(2), request(3))
    first = queue.first()
    assert first is not None
    queue.set_aside(first)
    assert (len(queue), queue.tokens) == (2, 200)
    assert queue.held_since_s(first, 1.0) == 1.0
    queue.put_back(first)
    assert queue.held_since_s(first, 9.0) == 1.0
    assert [one.id for one in empty_out(queue)] == [1, 2, 3]


def test_the_tokens_ahead_follow_tier_tenant_and_weight() -> None:
    queue = filled(
        *[request(number, "many", tokens=100) for number in range(10)],
        request(10, "urgent", tokens=500, tier=Tier.INTERACTIVE),
        request(11, "late", tokens=900, tier=Tier.BATCH),
    )
    assert queue.tokens_ahead(request(20, "many")) == 500 + 1000
    assert queue.tokens_ahead(request(20, "new")) == 500 + 100, "it is served side by side with the other"
    assert queue.tokens_ahead(request(20, "new", tier=Tier.INTERACTIVE)) == 100
    assert queue.tokens_ahead(request(20, "urgent", tier=Tier.BATCH)) == 500 + 1000 + 100


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add", "leave", "remove", "aside"]),
        st.integers(0, 30),
        st.sampled_from("abc"),
        st.sampled_from(Tier),
    ),
    max_size=80,
)


@given(steps)
def test_whatever_happens_everything_leaves_once_and_the_counts_are_right(
    story: list[tuple[str, int, str, Tier]],
) -> None:
    queue, inside, gone, numbers = Queue(), dict[int, Request](), [], 0
    for what, which, tenant, tier in story:
        if what == "add":
            numbers += 1
            inside[numbers] = request(numbers, tenant, tokens=1 + which, tier=tier, deadline_s=float(which))
            queue.add(inside[numbers])
        elif what == "leave" and (first := queue.first()) is not None:
            queue.leave(first, 0.0)
            gone.append(inside.pop(first.id))
        elif what == "remove" and inside:
            number = list(inside)[which % len(inside)]
            assert queue.remove(number) is inside.pop(number)
            assert queue.remove(number) is None
        elif what == "aside" and (first := queue.first()) is not None:
            queue.set_aside(first)
            assert first.id not in queue
            queue.put_back(first)
        assert set(queue) == set(inside.values())
        assert (len(queue), queue.tokens) == (len(inside), sum(one.prompt_tokens for one in inside.values()))
        for name in "abc":
            assert queue.waits(name) == sum(one.tenant == name for one in inside.values())
    assert {one.id for one in empty_out(queue)} == set(inside)
