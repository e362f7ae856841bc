"""What is told of a model and its variant under overload, from what came of each request?"""

from collections import Counter

import numpy as np
import pytest

from benchmarks.live_fleet import Told
from benchmarks.variants_live import BEST, CHEAPEST, MODEL, VARIANT, Point, asked, point, ratios
from simulation.trace import Trace

LOYAL = {"x-headrace-min-quality": "0.95"}


def trace(*at_s: float) -> Trace:
    count = len(at_s)
    return Trace(
        at_s=np.array(at_s),
        prompt_tokens=np.full(count, 80, dtype=np.int32),
        output_tokens=np.full(count, 20, dtype=np.int32),
    )


def answered(first_s: float, variant: str) -> Told:
    return Told(first_s=first_s, last_s=first_s + 1.0, variant=variant)


def test_only_what_began_in_time_and_after_the_queues_had_filled_is_goodput() -> None:
    told = [
        answered(1.0, MODEL),
        answered(5.0, MODEL),
        answered(6.0, VARIANT),
        answered(9.9, VARIANT),
        Told(),
    ]
    found = point(trace(0.0, 4.5, 5.0, 5.0, 6.0), told, [{}] * 5, number=1, way="free", span_s=8.0)
    assert found.goodput == {MODEL: 100 / 6, VARIANT: 100 / 6}
    assert found.sum == 200 / 6
    assert (found.met, found.refused) == (0.5, 0.2)
    assert found.answers == {MODEL: 2, VARIANT: 2}


def test_an_answer_of_less_quality_than_was_asked_ends_the_benchmark() -> None:
    told = [answered(5.0, MODEL), answered(5.0, VARIANT)]
    assert point(trace(4.0, 4.0), told, [LOYAL, {}], number=1, way="free", span_s=8.0).loyal_answers == {MODEL: 1}
    with pytest.raises(AssertionError, match="1 answers of less quality"):
        point(trace(4.0, 4.0), told, [{}, LOYAL], number=1, way="free", span_s=8.0)


def test_what_requests_ask_for_in_each_way() -> None:
    source = np.random.default_rng(1)
    assert asked("alone", 3, 0.9, source) == [BEST] * 3
    apart, free = (Counter(tuple(ask.items()) for ask in asked(way, 10_000, 0.9, source)) for way in ("apart", "free"))
    assert set(apart) == {tuple(BEST.items()), tuple(CHEAPEST.items())}
    assert apart[tuple(BEST.items())] == pytest.approx(5000, rel=0.05)
    assert set(free) == {(), tuple(LOYAL.items())}
    assert free[tuple(LOYAL.items())] == pytest.approx(2000, rel=0.1)


def test_ratios_compare_what_was_carried_in_the_same_round() -> None:
    def of(way: str, number: int, model: float, variant: float) -> Point:
        return Point(
            round=number,
            way=way,
            requests=1,
            goodput={MODEL: model, VARIANT: variant},
            met=1.0,
            refused=0.0,
            ttft_p50_s=1.0,
            ttft_p95_s=1.0,
            answers={},
            loyal_answers={},
        )

    points = [
        of(way, number, number * model, number * variant)
        for number in (1, 2, 3)
        for way, model, variant in (("alone", 100, 0), ("apart", 90, 110), ("free", 95, 95))
    ]
    told = ratios(points)
    assert [round(one.value, 3) for one in told.values()] == [0.95, 1.9, 1.222]
