"""Does a turn send what has credit, in order, where it begins soonest, and never more than that?"""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing import Prefixes, Queue, Replica, Request, Tier, Turn, batch
from routing.batch import BATCH_PATIENCE_S

BLOCK = 10


def request(number: int, *, tokens: int = 10, tenant: str = "", prefix: int = 0, **what: object) -> Request:
    blocks = tuple(hash((prefix, place)) for place in range(tokens // BLOCK)) if prefix else ()
    return Request(
        id=number, prompt_tokens=tokens, max_output_tokens=1, arrived_s=0.0, tenant=tenant, blocks=blocks, **what
    )  # type: ignore[arg-type]


class Place:
    """A queue and some replicas."""

    def __init__(self, *requests: Request) -> None:
        self.queue, self.prefixes, self.ttft_s = Queue(), Prefixes(block_tokens=BLOCK), 0.5
        self.replicas: dict[str, Replica] = {}
        for one in requests:
            self.queue.add(one)

    def replica(self, name: str, *, slots: int = 4, tokens: int = 1000, queued: int = 0, running: int = 0) -> Replica:
        one = self.replicas[name] = Replica(id=name, token_s=0.001, most_running=10)
        one.hear(slots=slots, tokens=tokens, queued_tokens=queued, running=running)
        self.prefixes.join(name, 100_000)
        return one

    def turn(self, now_s: float = 0.0) -> Turn:
        return batch(self.queue, self.replicas, self.prefixes, now_s=now_s, random=Random(1), ttft_s=self.ttft_s)

    def placed(self, now_s: float = 0.0) -> list[tuple[int, str]]:
        return [(one.request.id, one.replica) for one in self.turn(now_s).placed]


shapes = st.lists(st.tuples(st.integers(1, 200), st.integers(0, 3), st.sampled_from("ab")), max_size=30)
grants = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 400), st.booleans()), max_size=5)


@given(shapes, grants)
def test_no_replica_gets_more_than_it_granted_and_nobody_is_sent_twice(
    what: list[tuple[int, int, str]], granted: list[tuple[int, int, bool]]
) -> None:
    place = Place(
        *[request(n, tokens=tokens, prefix=prefix, tenant=tenant) for n, (tokens, prefix, tenant) in enumerate(what)]
    )
    for number, (slots, tokens, draining) in enumerate(granted):
        place.replica(str(number), slots=slots, tokens=tokens).draining = draining
    sent, tokens = Counter[str](), Counter[str]()
    placed = place.turn().placed
    for one in placed:
        sent[one.replica] += 1
        tokens[one.replica] += one.read_tokens
    for number, (slots, most, draining) in enumerate(granted):
        assert sent[str(number)] <= (0 if draining else slots)
        assert tokens[str(number)] <= (0 if draining else most)
    assert len({one.request.id for one in placed}) == len(placed) == len(what) - len(place.queue)


@given(shapes)
def test_turn_after_turn_everything_leaves(what: list[tuple[int, int, str]]) -> None:
    place = Place(
        *[request(n, tokens=tokens, prefix=prefix, tenant=tenant) for n, (tokens, prefix, tenant) in enumerate(what)]
    )
    now_s = 0.0
    for _ in range(4 * len(what)):
        for name in "xy":
            place.replicas.pop(name, None)
            place.prefixes.forget(name)
            place.replica(name, slots=2, tokens=200)
        place.turn(now_s)
        now_s += 0.1
    assert not len(place.queue)


def test_equal_requests_spread_over_equal_replicas() -> None:
    place = Place(*[request(number) for number in range(6)])
    place.replica("x")
    place.replica("y")
    assert Counter(replica for _, replica in place.placed()) == {"x": 3, "y": 3}


def test_what_shares_a_prefix_follows_it() -> None:
    place = Place(*[request(number, tokens=100, prefix=1 + number % 2) for number in range(6)])
    place.replica("x", tokens=10_000, slots=9)
    place.replica("y", tokens=10_000, slots=9)
    where = dict(place.placed())
    assert where[0] == where[2] == where[4] != where[1] == where[3] == where[5]


def test_a_prompt_that_fits_nowhere_is_not_overtaken() -> None:
    place = Place(request(0, tokens=40), request(1, tokens=60), request(2, tokens=5))
    place.replica("x", tokens=50)
    place.replica("y", tokens=50)
    assert [number for number, _ in place.placed()] == [0]


def test_a_request_waits_for_its_prefix_as_long_as_it_gains_by_that() -> None:
    place = Place()
    warm, cold = place.replica("warm", slots=9), place.replica("cold", slots=9)
    place.prefixes.sent(request(0, tokens=900, prefix=7), "warm")
    place.queue.add(request(1, tokens=1000, prefix=7))
    place.queue.add(request(2, tokens=20))
    warm.hear(slots=9, tokens=50, queued_tokens=100, running=0)
    # There 100 + 100 tokens stand before its first one, elsewhere 1000: it gains 0.8 s.
    assert place.placed(5.0) == [(2, "cold")]
    cold.hear(slots=9, tokens=1000, queued_tokens=0, running=0)
    assert place.placed(5.7) == []
    warm.hear(slots=9, tokens=150, queued_tokens=0, running=0)
    assert place.placed(5.75) == [(1, "warm")]


def test_it_goes_elsewhere_after_that() -> None:
    place = Place(request(1, tokens=1000, prefix=7))
    place.replica("warm", tokens=50, queued=100)
    place.replica("cold")
    place.prefixes.sent(request(0, tokens=900, prefix=7), "warm")
    assert place.placed(5.0) == []
    assert place.placed(5.9) == [(1, "cold")]


@pytest.mark.parametrize(
    ("behind", "tier", "expected"), [(9, Tier.STANDARD, []), (9, Tier.BATCH, ["cold"]), (0, None, ["cold"])]
)
def test_the_more_as_urgent_ones_wait_behind_the_longer_it_is_held_for_its_prefix(
    behind: int, tier: Tier, expected: list[str]
) -> None:
    """It would gain 0.8 s itself; nine others would lose 0.45 s each by 900 more tokens read at one of two replicas."""
    place = Place(request(1, tokens=1000, prefix=7, tier=Tier.STANDARD))
    place.replica("warm", tokens=50, queued=100)
    place.replica("cold", slots=1)
    place.prefixes.sent(request(0, tokens=900, prefix=7), "warm")
    assert place.placed(5.0) == []
    for number in range(behind):
        place.queue.add(request(2 + number, tokens=2000, tier=tier))
    assert [name for _, name in place.placed(7.0)] == expected


def test_a_tenant_that_is_behind_does_not_wait_for_its_prefix() -> None:
    place = Place(request(1, tokens=1000, prefix=7, tenant="behind"))
    place.replica("warm", tokens=50, queued=100)
    place.replica("cold")
    place.prefixes.sent(request(0, tokens=900, prefix=7), "warm")
    place.queue.add(request(2, tokens=10, tenant="ahead"))
    place.queue.counters.charge("ahead", 5000)
    other = next(one for one in place.queue if one.id == 2)
    place.queue.leave(other, 0.0)
    assert place.placed(5.0) == [(1, "cold")]


def test_one_whose_deadline_passed_is_taken_out_and_named() -> None:
    place = Place(request(1, deadline_s=3.0), request(2))
    place.replica("x")
    turn = place.turn(4.0)
    assert [one.id for one in turn.late] == [1]
    assert [one.request.id for one in turn.placed] == [2]


def test_one_that_can_not_be_answered_in_time_any_more_is_taken_out_too() -> None:
    """Its own 100 tokens take 0.1 s; at a busy replica two steps of 0.1 s come before, unless nobody knows of any."""
    for step_s, running, expected in ((0.1, 0, [1]), (0.1, 1, []), (0.0, 1, [1])):
        place = Place(request(1, tokens=100, deadline_s=3.0))
        place.replica("x", running=running).step_s = step_s
        turn = place.turn(2.8)
        assert [one.request.id for one in turn.placed] == expected
        assert [one.id for one in turn.late] == [1][len(expected) :]


@pytest.mark.parametrize("ttft_s", [0.5, 1.0, 1.5])
def test_an_interactive_request_behind_tier_batch_still_meets_its_target(ttft_s: float) -> None:
    place = Place(*[request(number, tokens=100, tier=Tier.BATCH) for number in range(9)])
    place.ttft_s = ttft_s
    replica = place.replica("x", slots=9, tokens=5000)
    assert place.placed()
    left_s = ttft_s - replica.token_s * replica.work_tokens
    assert 0.49 * ttft_s < left_s < 0.5 * ttft_s + 0.1, "half is left for its own prompt, another of 0.1 s did not fit"


def test_the_last_places_are_not_for_tier_batch() -> None:
    place = Place(request(1, tokens=10, tier=Tier.BATCH))
    place.replica("x")
    place.replicas["x"].hear(slots=1, tokens=5000, queued_tokens=0, running=9)
    assert place.placed(0.1) == [], "the last places are for others"
    place.queue.add(request(20))
    assert place.placed(0.1) == [(20, "x")]


def test_tier_batch_leaves_more_places_where_others_found_none() -> None:
    place = Place(request(1, tokens=10, tier=Tier.BATCH))
    place.replica("x", slots=9, tokens=5000)
    assert place.placed() == [(1, "x")]
    for number in range(2, 8):
        place.replicas["x"].hear(slots=1, tokens=5000, queued_tokens=0, running=9)
        place.queue.add(request(number))
        assert place.placed(0.2) == [(number, "x")]
    place.replicas["x"].hear(slots=4, tokens=5000, queued_tokens=0, running=7)
    place.queue.add(request(20, tokens=10, tier=Tier.BATCH))
    assert place.placed(0.3) == [], "each of the six waited for 0.2 s"
    assert place.placed(600.0) == [(20, "x")], "nobody came for ten minutes"


def test_tier_batch_is_not_starved_where_there_is_never_room() -> None:
    place = Place(request(1, tokens=100, tier=Tier.BATCH), request(2, tokens=100, tier=Tier.BATCH))
    one = place.replica("x", tokens=1000, queued=900)
    assert place.placed(0.5) == []
    assert place.placed(BATCH_PATIENCE_S) == [(1, "x")]
    one.hear(slots=4, tokens=1000, queued_tokens=900, running=3)
    assert place.placed(BATCH_PATIENCE_S + 1) == []
    assert place.placed(2 * BATCH_PATIENCE_S) == [(2, "x")]


def test_without_credit_the_queue_is_not_looked_at() -> None:
    place = Place()
    place.replica("x", slots=0)
    place.replica("y", tokens=0)
    place.replica("z").draining = True
    place.queue.first = None  # type: ignore[assignment]
    assert place.turn() == Turn()
