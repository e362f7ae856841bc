"""Does Ray Serve get an answer for every deployment, whatever it asks, and can it ship the policy by value?

Contexts, metrics and the wrapper round the policy are Serve's own; only the controller's loop is played here.
"""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from ray.serve.config import AutoscalingPolicy

from autoscaling import ServePolicy, Traffic
from tests.autoscaling.asked_by_serve import ENGINE, OTHER, Application


def test_every_deployment_gets_a_target_and_the_router_keeps_its_own():
    application = Application(ENGINE, OTHER)
    assert application.tick() == {"router": 1, "engine-tiny": 0, "engine-big.1": 0}


def test_a_queue_in_the_router_starts_its_own_model_from_zero_and_no_other():
    application = Application(ENGINE, OTHER)
    application.queue(5.0, model="big.1")
    application.queue(0.0)
    assert application.tick() == {"router": 1, "engine-tiny": 0, "engine-big.1": 1}


def test_a_busy_engine_gets_company_and_an_idle_fleet_goes_to_zero_after_the_hold():
    application = Application(ENGINE)
    application.targets[ENGINE] = 1
    application.queue(11.0)
    application.run(ENGINE, running=10.0)
    assert application.tick()["engine-tiny"] == 3
    application.queue(0.0)
    application.run(ENGINE, running=0.0)
    assert application.tick(59.0)["engine-tiny"] == 3
    assert application.tick(1.0)["engine-tiny"] == 1, "Serve itself goes to zero by way of one"
    assert application.tick()["engine-tiny"] == 0
    application.queue(21.0)
    assert application.tick(1.0)["engine-tiny"] == 3, "from zero to what is needed in one decision"


def test_between_two_decisions_the_last_one_is_repeated():
    application = Application(ENGINE)
    application.targets[ENGINE] = 1
    application.run(ENGINE, running=1.0)
    application.queue(0.0)
    application.tick()
    application.queue(100.0)
    assert application.tick(0.5)["engine-tiny"] == 1
    assert application.tick(0.5)["engine-tiny"] == 8


def test_old_numbers_are_silence_and_silence_changes_nothing():
    application = Application(ENGINE)
    application.targets[ENGINE] = 3
    application.run(ENGINE, running=6.0)
    application.queue(0.0)
    application.tick()
    application.report_age_s = 5.1
    application.run(ENGINE, running=0.0)
    for _ in range(100):
        assert application.tick(1.0)["engine-tiny"] == 3


def test_a_silent_router_keeps_idle_engines():
    application = Application(ENGINE)
    application.targets[ENGINE] = 3
    application.run(ENGINE, running=0.0)
    for _ in range(100):
        assert application.tick(1.0)["engine-tiny"] == 3
    application.queue(0.0)
    for _ in range(62):
        application.tick(1.0)
    assert application.targets[ENGINE] == 0


def test_a_lost_state_costs_no_replica():
    application = Application(ENGINE)
    application.targets[ENGINE] = 3
    application.run(ENGINE, running=0.0)
    application.queue(0.0)
    application.tick()
    application.states = {}
    assert application.tick(59.0)["engine-tiny"] == 3
    assert application.tick(59.0)["engine-tiny"] == 3
    assert application.tick(1.0)["engine-tiny"] < 3


def test_the_state_is_json_beside_the_keys_of_serve():
    application = Application(ENGINE)
    application.queue(5.0)
    application.tick()
    assert set(json.loads(json.dumps(application.states[ENGINE]))) > {"headrace"}


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf"), "many"])
def test_nonsense_is_logged_once_and_changes_nothing(nonsense, caplog: pytest.LogCaptureFixture):
    application = Application(ENGINE, OTHER)
    application.targets[ENGINE] = 2
    application.queue(0.0)
    application.queue(5.0, model="big.1")
    application.run(ENGINE, running=nonsense)
    with caplog.at_level(logging.INFO, logger="ray.serve"):
        for _ in range(5):
            targets = application.tick(1.0)
    assert targets == {"router": 1, "engine-tiny": 2, "engine-big.1": 1}, "others go on"
    assert sum("engine-tiny keeps its replicas" in record.message for record in caplog.records) == 1


def test_a_state_of_another_shape_is_dropped():
    application = Application(ENGINE)
    application.targets[ENGINE] = 2
    application.run(ENGINE, running=0.0)
    application.queue(0.0)
    application.states = {ENGINE: {"headrace": {"decided_s": "yesterday"}}}
    assert application.tick()["engine-tiny"] == 2
    assert application.tick()["engine-tiny"] == 2
    assert application.states[ENGINE]["headrace"]["replicas"] == 2


def test_a_change_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture):
    application = Application(ENGINE)
    application.queue(5.0)
    with caplog.at_level(logging.INFO, logger="ray.serve"):
        application.tick()
    assert [record.message for record in caplog.records] == [
        "engine-tiny: 0 -> 1 replicas; 0 requests in engines, 5 queued; no replica has spoken yet"
    ]


def test_targets_that_make_no_sense_are_refused_at_once():
    with pytest.raises(ValueError, match="target_utilization must be above 0 and at most 1, got 70"):
        ServePolicy(target_utilization=70)


BARE = """
import sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"autoscaling", "routing", "cluster", "deployments", "headrace"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Nowhere())
sys.path.append(sys.argv[1])
from types import SimpleNamespace
from ray import cloudpickle

policy = cloudpickle.load(sys.stdin.buffer)(target_utilization=0.7, hold_s=60.0)
replica = SimpleNamespace(unique_id="r")
def context(name, target, running, metrics):
    raw = {key: {0: [SimpleNamespace(timestamp=10.0, value=value)]} for key, value in metrics.items()}
    return SimpleNamespace(deployment_name=name, current_time=10.0, target_num_replicas=target,
        running_replicas=running, raw_metrics=raw, capacity_adjusted_min_replicas=0,
        capacity_adjusted_max_replicas=8, policy_state={})
traffic = dict.fromkeys(sys.argv[2].split(","), 0.0) | {"queued_requests": 5.0}
targets, states = policy({
    "a": context("router", 1, [0], {f"{name}.tiny": value for name, value in traffic.items()}),
    "b": context("engine-tiny", 0, [], {}),
})
targets_again, _ = policy({"b": SimpleNamespace(deployment_name="engine-tiny", target_num_replicas=4)})
print(targets, sorted(states["b"]["headrace"]), targets_again, "autoscaling" in sys.modules)
"""


def test_the_policy_works_by_value_where_this_project_is_not_installed():
    policy = AutoscalingPolicy(policy_function="autoscaling:ServePolicy")
    names = ["queued_requests", "queued_tokens", *Traffic().to_metrics()]
    answer = subprocess.run(
        [sys.executable, "-I", "-S", "-c", BARE, str(Path(ray.__file__).parents[1]), ",".join(names)],
        input=policy.get_serialized_policy_def(),
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert answer.stdout.decode().strip() == (
        "{'a': 1, 'b': 1} ['decided_s', 'lacked_s', 'memory', 'replicas'] {'b': 4} False"
    ), answer.stderr.decode()


def test_what_engines_measured_reaches_the_decision():
    """One replica by slots, four by the time that prompts take, and two for what comes until they serve."""
    application = Application(ENGINE)
    application.targets[ENGINE] = 1
    application.run(ENGINE, running=1.0)
    application.queue(0.0)
    for report in application.reports.values():
        if "slots" in report:
            report |= {"step_s": 0.01, "sequence_s": 0.0005, "prompt_token_s": 0.0001}
        else:
            report |= {"long_requests.tiny": 1_200.0, "long_tokens.tiny": 1_200_000.0}
    assert application.tick()["engine-tiny"] == 6


def test_two_routers_are_counted_together():
    one = Traffic(short_requests=10, long_requests=30, prompt_tokens=100, output_tokens=10, missed_requests=1)
    other = Traffic(short_requests=20, long_requests=90, prompt_tokens=200, output_tokens=10)
    both = Traffic.together([one.to_metrics(), other.to_metrics()])
    assert (both.short_requests, both.long_requests, both.missed_requests) == (30, 120, 1)
    assert both.prompt_tokens == pytest.approx(175)
    assert Traffic.together([]) == Traffic()
