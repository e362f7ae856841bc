"""Is the chosen replica the one that would answer soonest, and only one that may be chosen?"""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from routing import Replica, Request, choose

REQUEST = Request(id=1, prompt_tokens=100, max_output_tokens=16, arrived_s=0.0, prefix=0)
IDLE = Replica(id="a", slots=4, tokens=1_000, queued_tokens=0, running=0, prefill_tokens_per_s=1_000.0, draining=False)


@st.composite
def fleets(draw: st.DrawFn, slowest_tokens_per_s: float = 0.0) -> list[Replica]:
    ids = draw(st.lists(st.text("abcdef", min_size=1, max_size=3), unique=True, max_size=6))
    return [
        Replica(
            id=replica_id,
            slots=draw(st.integers(0, 3)),
            tokens=draw(st.integers(0, 300)),
            queued_tokens=draw(st.integers(0, 500)),
            running=draw(st.integers(0, 5)),
            prefill_tokens_per_s=draw(st.floats(slowest_tokens_per_s, 1e5)),
            draining=draw(st.booleans()),
        )
        for replica_id in ids
    ]


@given(fleets())
def test_a_replica_without_credit_or_draining_is_never_chosen(replicas: list[Replica]):
    allowed = {one.id for one in replicas if one.slots > 0 and one.tokens > 0 and not one.draining}
    chosen = choose(REQUEST, replicas)
    assert chosen in allowed if allowed else chosen is None


@given(fleets(slowest_tokens_per_s=1.0))
def test_no_other_replica_would_answer_sooner(replicas: list[Replica]):
    seconds = {one.id: (one.queued_tokens + 100) / one.prefill_tokens_per_s for one in replicas if one.has_credit}
    chosen = choose(REQUEST, replicas)
    assert chosen is None or seconds[chosen] == min(seconds.values())


@given(fleets(), st.randoms(use_true_random=False))
def test_the_order_of_the_replicas_does_not_matter(replicas: list[Replica], random):
    shuffled = list(replicas)
    random.shuffle(shuffled)
    assert choose(REQUEST, shuffled) == choose(REQUEST, replicas)


def test_a_faster_replica_wins_although_more_is_queued_there():
    fast = replace(IDLE, id="fast", queued_tokens=900, prefill_tokens_per_s=10_000.0)
    slow = replace(IDLE, id="slow", queued_tokens=50)
    assert choose(REQUEST, [slow, fast]) == "fast"


def test_equal_predictions_go_to_the_least_running_then_to_the_lowest_id():
    assert choose(REQUEST, [replace(IDLE, running=2), replace(IDLE, id="b", running=1)]) == "b"
    assert choose(REQUEST, [replace(IDLE, id="b"), IDLE]) == "a"


def test_a_new_replica_of_unknown_rate_gets_work_as_soon_as_the_known_ones_have_a_queue():
    new = replace(IDLE, id="z", prefill_tokens_per_s=0.0)
    assert choose(REQUEST, [replace(IDLE, queued_tokens=1), new]) == "z"
    assert choose(REQUEST, [IDLE, new]) == "a"


def test_without_any_known_rate_the_shortest_queue_wins():
    unknown = replace(IDLE, prefill_tokens_per_s=0.0)
    assert choose(REQUEST, [replace(unknown, queued_tokens=5), replace(unknown, id="b", queued_tokens=4)]) == "b"
