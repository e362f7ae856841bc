"""Does tier batch leave as many places free as those need that can't wait, and no more?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.spare import HALF_LIFE_S, LATE_SHARE, MORE, SOON_S, Spare

LATE_S = 2 * SOON_S


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 300), st.integers(-1, 300), st.floats(0.0, 1000.0))))
def test_it_is_never_more_than_half_of_all_places(came: list[tuple[bool, int, int, float]]) -> None:
    spare, now_s = Spare(), 0.0
    for late, places, free, after_s in came:
        now_s += after_s
        spare.came(LATE_S if late else 0.0, free=free, places=places, now_s=now_s)
        assert 0 <= spare.places(places, now_s) <= places / 2


@pytest.mark.parametrize(("places", "first"), [(1, 0), (9, 0), (10, 1), (32, 3), (256, 25)])
def test_before_anybody_came_it_is_a_tenth(places: int, first: int) -> None:
    assert Spare().places(places, 0.0) == first


def test_it_stays_where_as_few_find_no_place_as_may() -> None:
    spare, found = Spare(), round(1 / LATE_SHARE) - 1
    for number in range(200):
        for _ in range(found):
            spare.came(0.0, free=1, places=256, now_s=0.0)
        spare.came(LATE_S, free=1, places=256, now_s=0.0)
        if not number:
            first = spare.learnt
    assert spare.learnt == pytest.approx(first)


def test_it_grows_at_once_where_many_find_none_and_shrinks_slowly_where_all_do() -> None:
    spare = Spare()
    for _ in range(8):
        spare.came(LATE_S, free=1, places=32, now_s=0.0)
    assert spare.places(32, 0.0) == int(3.2 + 8 * MORE)
    for _ in range(50):
        spare.came(0.0, free=1, places=32, now_s=0.0)
    assert spare.places(32, 0.0) == 6


def test_who_waits_while_places_are_free_waits_for_something_else() -> None:
    spare = Spare()
    for _ in range(100):
        spare.came(LATE_S, free=20, places=32, now_s=0.0)
    assert spare.places(32, 0.0) == 2


def test_after_a_lull_one_is_left() -> None:
    spare = Spare()
    for _ in range(100):
        spare.came(LATE_S, free=1, places=256, now_s=0.0)
    assert spare.places(256, 0.0) == 75
    assert spare.places(256, HALF_LIFE_S) == 37
    assert [spare.places(places, 100 * HALF_LIFE_S) for places in (256, 10, 9)] == [1, 1, 0]
