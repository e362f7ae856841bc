"""Does the router remember what replicas have cached, within bounds, and unlearn what they have not?"""

from hypothesis import given
from hypothesis import strategies as st

from routing import Prefixes, Request, prefix_keys

BLOCK = 4


def prompt(*parts: int, tenant: str = "a", extra: int = 0) -> Request:
    ids = [part for part in parts for _ in range(BLOCK)] + [0] * (1 + extra)
    key, blocks = prefix_keys(ids, tenant, BLOCK)
    return Request(
        id=1, prompt_tokens=len(ids), max_output_tokens=1, arrived_s=0.0, tenant=tenant, key=key, blocks=blocks
    )


def remembering(kv_blocks: int = 1000, replicas: str = "xy", most_blocks: int = 10_000) -> Prefixes:
    prefixes = Prefixes(block_tokens=BLOCK, most_blocks=most_blocks)
    for name in replicas:
        prefixes.join(name, kv_blocks * BLOCK)
    return prefixes


def test_what_was_sent_somewhere_is_cached_there_as_far_as_the_next_prompt_is_the_same() -> None:
    prefixes = remembering()
    prefixes.sent(prompt(1, 2, 3), "x")
    prefixes.sent(prompt(1, 7), "y")
    assert prefixes.cached_tokens(prompt(1, 2, 3, 4)) == {"x": 3 * BLOCK, "y": BLOCK}
    assert prefixes.cached_tokens(prompt(1, 7, 3)) == {"x": BLOCK, "y": 2 * BLOCK}
    assert prefixes.cached_tokens(prompt(2, 1)) == {}


def test_tenants_share_nothing() -> None:
    prefixes = remembering()
    prefixes.sent(prompt(1, 2), "x")
    assert prefixes.cached_tokens(prompt(1, 2, tenant="b")) == {}


def test_only_the_same_prompt_has_the_same_key() -> None:
    keys = [prompt(1, 2), prompt(1, 2, extra=1), prompt(1, 3), prompt(1, 2, tenant="b"), prompt(1), prompt(extra=2)]
    assert len({one.key for one in keys}) == len(keys)
    assert prompt(1, 2, extra=3).key == prompt(1, 2, extra=3).key


def test_the_longest_unused_is_forgotten_first_and_starts_outlive_ends() -> None:
    prefixes = remembering(kv_blocks=32)
    for part in range(10):
        prefixes.sent(prompt(part, 100, 200, 300), "x")
    assert prefixes.cached_tokens(prompt(0, 100)) == {}
    assert prefixes.cached_tokens(prompt(9, 100)) == {"x": 2 * BLOCK}
    prefixes.sent(prompt(2, 100), "x")
    for part in range(10, 17):
        prefixes.sent(prompt(part, 100, 200, 300), "x")
    assert prefixes.cached_tokens(prompt(2, 100, 200)) == {"x": 2 * BLOCK}


def test_a_replica_that_had_less_than_predicted_is_remembered_for_less() -> None:
    prefixes = remembering(kv_blocks=400, replicas="x")
    for part in range(100):
        prefixes.sent(prompt(part, 1, 2), "x")
    for _ in range(6):
        prefixes.told("x", predicted_tokens=3 * BLOCK, cached_tokens=0)
    assert len(prefixes) < 200
    assert prefixes.cached_tokens(prompt(99, 1, 2)), "what was sent last is still there"
    for part in range(200):
        prefixes.sent(prompt(part, 1, 2), "x")
        prefixes.told("x", predicted_tokens=3 * BLOCK, cached_tokens=3 * BLOCK)
    assert len(prefixes) == 400


def test_a_replica_that_is_gone_is_forgotten_and_its_place_taken() -> None:
    prefixes = remembering()
    prefixes.sent(prompt(1, 2), "x")
    prefixes.sent(prompt(1, 2), "y")
    prefixes.forget("x")
    prefixes.join("z", 1000)
    assert prefixes.cached_tokens(prompt(1, 2)) == {"y": 2 * BLOCK}
    prefixes.sent(prompt(1), "x")
    assert prefixes.cached_tokens(prompt(1, 2)) == {"y": 2 * BLOCK}


@given(st.lists(st.tuples(st.lists(st.integers(0, 3), max_size=12), st.sampled_from("xyz")), max_size=60))
def test_memory_is_bounded_and_no_replica_is_said_to_have_what_it_was_not_sent(
    sent: list[tuple[list[int], str]],
) -> None:
    prefixes = remembering(replicas="xyz", most_blocks=90)
    for parts, replica in sent:
        prefixes.sent(prompt(*parts), replica)
    assert len(prefixes) <= 90
    for parts, _ in sent:
        for replica, tokens in prefixes.cached_tokens(prompt(*parts)).items():
            start = parts[: tokens // BLOCK]
            assert any(other[: len(start)] == start for other, to in sent if to == replica)
