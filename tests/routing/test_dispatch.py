"""Does a turn place requests within what each replica granted, in order, and cheaply when none is free?"""

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from routing import Replica, Request, dispatch


def request(number: int, *, tokens: int = 10, prefix: int = 0) -> Request:
    return Request(id=number, prompt_tokens=tokens, max_output_tokens=16, arrived_s=float(number), prefix=prefix)


def replica(replica_id: str, *, slots: int = 4, tokens: int = 1_000, draining: bool = False) -> Replica:
    return Replica(
        id=replica_id,
        slots=slots,
        tokens=tokens,
        queued_tokens=0,
        running=0,
        prefill_tokens_per_s=1_000.0,
        draining=draining,
    )


queues = st.lists(st.tuples(st.integers(1, 200), st.integers(0, 4)), max_size=30).map(
    lambda shapes: [request(n, tokens=tokens, prefix=prefix) for n, (tokens, prefix) in enumerate(shapes)]
)
fleets = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 400), st.booleans()), max_size=5).map(
    lambda shapes: [
        replica(str(n), slots=slots, tokens=tokens, draining=draining)
        for n, (slots, tokens, draining) in enumerate(shapes)
    ]
)


@given(waiting=queues, replicas=fleets)
def test_no_replica_gets_more_than_it_granted_but_for_one_overdraft_by_the_head(
    waiting: list[Request], replicas: list[Replica]
):
    placed = dispatch(waiting, replicas)
    requests, tokens = Counter[str](), Counter[str]()
    for position, (one, replica_id) in enumerate(placed):
        requests[replica_id] += 1
        tokens[replica_id] += one.prompt_tokens if position else 0
    head_tokens = {placed[0][1]: placed[0][0].prompt_tokens} if placed else {}
    for one in replicas:
        assert requests[one.id] <= one.slots
        if tokens[one.id]:
            assert tokens[one.id] + head_tokens.get(one.id, 0) <= one.tokens


@given(waiting=queues, replicas=fleets)
def test_a_draining_or_spent_replica_gets_nothing(waiting: list[Request], replicas: list[Replica]):
    closed = {one.id for one in replicas if one.draining or not one.slots or not one.tokens}
    assert not closed & {replica_id for _, replica_id in dispatch(waiting, replicas)}


@given(waiting=queues, replicas=fleets)
def test_each_request_is_placed_at_most_once_and_the_head_whenever_there_is_credit(
    waiting: list[Request], replicas: list[Replica]
):
    placed = [one for one, _ in dispatch(waiting, replicas)]
    assert len(placed) == len(set(placed))
    assert set(placed) <= set(waiting)
    if waiting and any(one.has_credit for one in replicas):
        assert placed[0] is waiting[0]


@given(waiting=queues, replicas=fleets.filter(lambda fleet: any(one.has_credit for one in fleet)))
def test_turn_after_turn_every_request_leaves(waiting: list[Request], replicas: list[Replica]):
    for _ in range(len(waiting)):
        placed = {one for one, _ in dispatch(waiting, replicas)}
        waiting = [one for one in waiting if one not in placed]
    assert not waiting


def test_equal_requests_spread_over_equal_replicas():
    placed = dispatch([request(n) for n in range(6)], [replica("a"), replica("b")])
    assert Counter(replica_id for _, replica_id in placed) == {"a": 3, "b": 3}


def test_a_prompt_goes_where_it_fits_and_overdraws_only_where_it_fits_nowhere():
    small, large = replica("small", tokens=50), replica("zlarge", tokens=500)
    assert dispatch([request(0, tokens=100)], [small, large])[0][1] == "zlarge"
    assert dispatch([request(0, tokens=900), request(1)], [small]) == ((request(0, tokens=900), "small"),)


def test_a_prompt_that_fits_nowhere_is_not_overtaken():
    waiting = [request(0, tokens=40), request(1, tokens=60), request(2, tokens=5)]
    placed = dispatch(waiting, [replica("a", tokens=50), replica("b", tokens=50)])
    assert [one.id for one, _ in placed] == [0]


class Untouchable(Sequence[Request]):
    """A queue that fails the test when it is looked at."""

    def __len__(self) -> int:
        return 1_000

    def __getitem__(self, index):
        raise AssertionError("the queue was read")


def test_without_credit_the_queue_is_not_looked_at():
    spent = [replica("a", slots=0), replica("b", tokens=0), replica("c", draining=True)]
    assert dispatch(Untouchable(), spent) == ()
