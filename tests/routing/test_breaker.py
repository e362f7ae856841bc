"""Do bad replicas get a rest, good ones none, and does nobody flap?"""

from math import isclose

from hypothesis import assume, given
from hypothesis import strategies as st

from routing.breaker import (
    FAILURES,
    FIRST_REST_S,
    FORGET_S,
    LONGEST_REST_S,
    REMEMBERED,
    Health,
    failed,
    lost,
    rested,
    succeeded,
)

EVENTS = {"answered": succeeded, "failed": failed, "lost": lost}
seconds = st.one_of(st.floats(0.0, 3.0), st.floats(0.0, 200.0))
stories = st.lists(st.tuples(st.sampled_from([*EVENTS, "failed"]), seconds), max_size=150)


def live(story: list[tuple[str, float]]) -> list[tuple[float, Health]]:
    """The replica's health after each event, and when."""
    health, now_s, lived = Health(), 0.0, []
    for event, later_s in story:
        now_s += later_s
        health = EVENTS[event](health, now_s)
        lived.append((now_s, health))
    return lived


@given(stories)
def test_rests_get_longer_unless_a_long_time_of_service_is_between_them(story: list[tuple[str, float]]) -> None:
    rests = {health.until_s: health for _, health in live(story) if health.until_s is not None}
    for before, after in zip(list(rests.values()), list(rests.values())[1:], strict=False):
        assert before.until_s is not None
        assert after.until_s is not None
        began_s = after.until_s - after.rest_s
        assert began_s > before.until_s - 1e-6, "no rest begins in another"
        served_s = began_s - after.served_since_s if after.served_since_s >= before.until_s else 0.0
        longer_s = min(2 * before.rest_s, LONGEST_REST_S)
        assume(not isclose(served_s, FORGET_S))  # where rounding decides
        assert after.rest_s == (FIRST_REST_S if served_s >= FORGET_S else longer_s)


@given(stories)
def test_however_failures_fall_the_state_changes_seldom(story: list[tuple[str, float]]) -> None:
    """At most 7 rests (1 s to 60 s) before they are all of a minute, and 7 more for each long time of service."""
    lived = live(story)
    rests = {health.until_s for _, health in lived if health.until_s is not None}
    if lived:
        total_s = lived[-1][0]
        assert len(rests) <= 7 + total_s / LONGEST_REST_S + 7 * total_s / FORGET_S


@given(st.lists(st.booleans(), max_size=300), st.integers(0, 3))
def test_a_replica_that_mostly_answers_never_rests(noise: list[bool], spare: int) -> None:
    """As many answered requests before each failed one as there may be failures."""
    health = Health()
    for fails in noise:
        for _ in range(2 + spare):
            health = succeeded(health, 0.0)
        if fails:
            health = failed(health, 0.0)
        assert health.until_s is None
        assert len(health.outcomes) <= REMEMBERED


def test_a_replica_that_only_fails_rests_gets_one_request_and_rests_longer() -> None:
    health, good = Health(), Health()
    for _ in range(FAILURES - 1):
        health = failed(health, 10.0)
        assert rested({"bad": health, "good": good}, 10.0) == {}
    health = failed(health, 10.0)
    assert rested({"bad": health, "good": good}, 10.5) == {"bad": 0}
    assert failed(health, 10.5) == succeeded(health, 10.5) == health, "what was sent before does not count"
    assert rested({"bad": health, "good": good}, 11.0) == {"bad": 1}
    again = failed(health, 11.0)
    assert rested({"bad": again, "good": good}, 12.9) == {"bad": 0}
    well = succeeded(again, 13.0)
    assert rested({"bad": well, "good": good}, 13.0) == {}


@given(st.lists(stories, min_size=1, max_size=4), seconds)
def test_there_is_always_a_replica_that_takes_requests(stories: list[list[tuple[str, float]]], now_s: float) -> None:
    replicas = {
        str(place): ([Health()] + [health for _, health in live(story)])[-1] for place, story in enumerate(stories)
    }
    limits = rested(replicas, now_s)
    assert len(limits) < len(replicas)
    assert all(replicas[name].until_s is not None for name in limits)
