"""What do an engine's routers hear of each other's requests?"""

from deployments.frames import VERSION, Call, Cancel, Delta, Load, Part, RouterFrame, Submit
from deployments.sharing import Sharing


def heard(sharing: Sharing, sequence: int, *messages: Submit | Call | Cancel) -> None:
    """A frame of the first of two routers."""
    sharing.hear(b"one", RouterFrame(VERSION, sequence, list(messages)), now_s=float(sequence))


def served(sharing: Sharing) -> dict[str, int]:
    """What the second would be told."""
    load = Load(credit_requests=1, credit_tokens=10)
    sharing.address(load, b"two", 0)
    return dict(load.served)


def two_routers() -> Sharing:
    sharing = Sharing()
    sharing.hear(b"two", RouterFrame(VERSION, 0, []), now_s=0.0)
    return sharing


def test_of_a_call_that_was_left_others_hear_what_it_took_in_the_end() -> None:
    sharing = two_routers()
    heard(sharing, 0, Call(1, 0, "POST", "/v1/responses", [], b"{}", 10, "alpha"), Cancel(1))
    assert served(sharing) == {"alpha": 10}
    sharing.sent(b"one", [], [Part(1, 0, bytearray(), False, output_tokens=5)], [])
    assert served(sharing) == {"alpha": 15}
    sharing.sent(b"one", [], [Part(1, 0, bytearray(), False, output_tokens=5)], [])
    assert served(sharing) == {"alpha": 15}


def test_of_a_text_that_was_left_nothing_more_comes() -> None:
    sharing = two_routers()
    heard(sharing, 0, Submit(1, 0, [1, 2, 3], {}, True, None, "alpha"), Cancel(1))
    assert served(sharing) == {"alpha": 3}
    assert not sharing._tenants[b"one"]


def test_what_a_lost_replica_told_is_not_told_again() -> None:
    sharing = two_routers()
    heard(sharing, 0, Submit(1, 1, [1, 2, 3], {}, True, None, "alpha", said_ids=[4, 5]))
    assert served(sharing) == {}
    sharing.sent(b"one", [Delta(1, 1, 0, "x", [6])], [], [])
    assert served(sharing) == {"alpha": 1}
