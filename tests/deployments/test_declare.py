"""What Serve is told about a fleet."""

import inspect

import pytest
from ray._private.label_utils import validate_label_selector
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import DeploymentSchema, ServeDeploySchema

from autoscaling import ServePolicy
from deployments import declare
from deployments.fleet import Fleet, Model, RouterSettings, Scaling
from deployments.model_placement import Placement
from deployments.served_model import Replicas

FLEET = Fleet(
    models=[
        Model(name="one", source="/models/one"),
        Model(name="two", source="/models/two", tensor_parallel=2, pipeline_parallel=2, replicas=Replicas(max=3)),
    ]
)


@pytest.fixture
def on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if vLLM's GPU build were installed."""
    monkeypatch.setattr(declare, "_uses_gpus", lambda model: True)


def test_the_schema_is_one_that_serve_takes_and_carries_the_whole_fleet() -> None:
    schema = declare.schema(FLEET)
    ServeDeploySchema.model_validate(schema)
    (application,) = schema["applications"]
    assert Fleet.model_validate(application["args"]) == FLEET
    assert application["autoscaling_policy"]["policy_function"] == "autoscaling:ServePolicy"


def test_a_cpu_replica_is_one_bundle_with_a_cpu_for_each_rank() -> None:
    options = declare.engine_options(FLEET.models[1], FLEET.router, FLEET.scaling)
    assert options["placement_group_bundles"] == [{"CPU": 4}]
    assert options["ray_actor_options"] == {"num_cpus": 4, "num_gpus": 0}


@pytest.mark.usefixtures("on_gpus")
def test_a_gpu_replica_on_one_node_holds_all_its_gpus_itself() -> None:
    options = declare.engine_options(FLEET.models[1], FLEET.router, FLEET.scaling)
    assert options["placement_group_bundles"] == [{"CPU": 4, "GPU": 4}]
    assert options["placement_group_strategy"] == "STRICT_PACK"
    assert options["ray_actor_options"] == {"num_cpus": 4, "num_gpus": 4}


@pytest.mark.usefixtures("on_gpus")
def test_over_several_nodes_each_rank_has_a_bundle_and_the_replica_no_gpu() -> None:
    options = declare.engine_options(FLEET.models[1].model_copy(update={"nodes": 2}), FLEET.router, FLEET.scaling)
    assert options["placement_group_bundles"] == [{"CPU": 1, "GPU": 1}] * 4
    assert options["ray_actor_options"] == {"num_cpus": 1, "num_gpus": 0}
    assert options["placement_group_strategy"] == "PACK"


@pytest.mark.usefixtures("on_gpus")
def test_stages_of_one_gpu_can_be_spread_and_serve_takes_labels_of_nodes() -> None:
    placement = Placement(spread=True, devices=["H100", "H200"], labels={"rack": "r7"})
    model = FLEET.models[0].model_copy(update={"nodes": 2, "pipeline_parallel": 2, "placement": placement})
    options = declare.engine_options(model, FLEET.router, FLEET.scaling)
    assert options["placement_group_strategy"] == "SPREAD"
    names = ("placement_group_bundles", "placement_group_strategy", "placement_group_bundle_label_selector")
    taken = DeploymentSchema(name="engine", **{name: options[name] for name in names})
    (selector,) = taken.placement_group_bundle_label_selector
    assert validate_label_selector(selector) is None


def test_every_deployment_reports_to_the_policy_and_leaves_hysteresis_to_it() -> None:
    every = [
        declare.router_options(FLEET),
        *(declare.engine_options(model, FLEET.router, FLEET.scaling) for model in FLEET.models),
    ]
    for options in every:
        scaling = options["autoscaling_config"]
        assert (scaling["upscale_delay_s"], scaling["downscale_delay_s"]) == (0, 0)
    assert [options["autoscaling_config"]["max_replicas"] for options in every] == [1, 1, 3]


def test_where_the_policy_only_advises_engines_follow_serve_s_own_settings() -> None:
    scaling = Scaling(advise=True, ongoing_requests=7, ttft_s=0.5)
    options = declare.engine_options(FLEET.models[1], FLEET.router, scaling)["autoscaling_config"]
    with pytest.warns(DeprecationWarning, match="metrics_interval_s"):  # it still is the one that works
        config = AutoscalingConfig.model_validate(options)
    assert (config.min_replicas, config.max_replicas, config.get_target_ongoing_requests()) == (1, 3, 7)
    assert (config.upscale_delay_s, config.downscale_delay_s) == (30, 600)
    (application,) = declare.schema(FLEET.model_copy(update={"scaling": scaling}))["applications"]
    told = application["autoscaling_policy"]["policy_kwargs"]
    assert (told["advise"], told["ttft_s"], "ongoing_requests" in told) == (True, 0.5, False)
    ServePolicy(**told)


def test_a_replica_that_is_stopped_outlives_the_longest_stream_and_a_router_its_successor_s_start() -> None:
    patient = RouterSettings(longest_stream_s=1200, settle_s=30)
    options = declare.engine_options(FLEET.models[0], patient, FLEET.scaling)
    assert options["graceful_shutdown_timeout_s"] > 1230
    routers = declare.router_options(FLEET.model_copy(update={"router": patient}))
    assert routers["graceful_shutdown_timeout_s"] == options["graceful_shutdown_timeout_s"]
    assert routers["max_surge_percent"] > 0


@pytest.mark.parametrize("replicas", [1, 2, 3, 8])
def test_logical_cpus_leave_room_for_one_more_router_while_they_are_replaced(replicas: int) -> None:
    fleet = FLEET.model_copy(update={"router": RouterSettings(replicas=replicas)})
    ranks = 1 + 3 * 4
    assert declare.logical_cpus(fleet) - ranks >= (replicas + 1) * declare.ROUTER_CPUS


def test_logical_cpus_let_every_replica_be_placed_at_once() -> None:
    assert declare.logical_cpus(FLEET) == 1 + 3 * 4 + 1


def test_the_builder_s_annotation_is_a_class_or_serve_would_hand_it_a_dict() -> None:
    from deployments.app import build

    assert inspect.signature(build).parameters["fleet"].annotation is Fleet
