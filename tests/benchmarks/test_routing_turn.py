"""Does the measurement of a router's turn measure turns in which something was sent?"""

from benchmarks.routing_turn import Scene, measure


def test_a_small_scene_sends_and_tells_times_above_zero() -> None:
    told = measure(Scene(replicas=4, waiting=50, tenants=3), turns=40)
    assert told["turns"] > 20
    assert 0 < told["p50_us"] <= told["p95_us"]
