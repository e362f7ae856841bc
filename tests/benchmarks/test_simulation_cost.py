"""Does the measurement of a simulation's cost play what it says?"""

import numpy as np

from benchmarks.simulation_cost import day, measure


def test_a_short_day_is_played_to_its_end_and_its_cost_is_told() -> None:
    told = measure(300, span_s=120)
    assert (told["requests"], told["attainment"] > 0.5) == (300, True)
    assert 115 <= told["seconds_simulated"] <= 200
    assert told["cpu_s"] > 0
    assert told["most_memory_mb"] > 10


def test_noon_has_three_times_the_requests_of_midnight() -> None:
    hours = np.bincount((day(86_000).at_s // 3600).astype(int))
    assert 2.5 < hours[11:13].sum() / (hours[0] + hours[23]) < 3.5
