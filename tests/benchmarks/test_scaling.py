"""Is the comparison of scaling policies fair by its own rules?"""

import numpy as np
import pytest

from autoscaling import Targets
from benchmarks.scaling import STARTS, WANTED_REPLICAS, Point, as_wanted, judged, setup, summed_up, synthetic
from headrace.simulate_runs import step_costs
from simulation.oracle import needed


def point(policy: str, attainment: float, device_hours: float) -> Point:
    return Point(policy=policy, knob=1.0, attainment=attainment, device_hours=device_hours)


def test_a_policy_is_dominated_by_who_attains_as_much_for_no_more() -> None:
    ours = point("headrace", 0.98, 10.0)
    told = judged([ours, point("ray", 0.98, 9.0), point("keda", 0.99, 12.0), point("oracle", 0.995, 8.0)])
    assert told["dominated_by"] == ["ray=1"]
    assert told["saved"] == pytest.approx(1 - 10 / 9)
    assert told["over_oracle"] == pytest.approx(1.25)


def test_where_no_other_attains_as_much_nothing_is_said_to_be_saved() -> None:
    told = judged([point("headrace", 0.99, 10.0), point("ray", 0.98, 1.0)])
    assert (told["dominated_by"], told["saved"], told["over_oracle"]) == ([], None, None)
    both = summed_up([told, told | {"saved": 0.2}])
    assert (both["no_baseline_attains_as_much"], both["mean_saved"], both["dominated"]) == (1, 0.2, 0)


@pytest.mark.parametrize("name", ["wave", "steps", "bursts"])
def test_load_is_as_long_and_as_heavy_as_the_rules_say(name: str) -> None:
    made = setup("h200", 60.0)
    costs, targets = step_costs(made).costs(), Targets()
    assert costs is not None
    trace = as_wanted(synthetic(name, 0), costs, targets, startup_s=60.0, seed=0)
    assert trace.span_s >= 0.95 * STARTS * 60
    share = 1 - costs.step_s / targets.token_s
    mean = needed(trace, costs, share=share, margin=1.0).mean()
    assert mean == pytest.approx(WANTED_REPLICAS, rel=0.15)
    again = as_wanted(synthetic(name, 0), costs, targets, startup_s=60.0, seed=0)
    assert np.array_equal(trace.at_s, again.at_s)
