"""Which pods would Ray's own node autoscaler ask KubeRay for? Its reading of the groups, its scheduler, no cluster."""

from collections import Counter

from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingReply, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import GangResourceRequest, ResourceRequest
from ray.core.generated.common_pb2 import LabelSelectorOperator

from deployments.declare import engine_name
from tests.k8s.built import clusters, declared, fleet_of


def asked(bundle: dict[str, float], selector: dict[str, str]) -> ResourceRequest:
    one_of = LabelSelectorOperator.LABEL_OPERATOR_IN
    return ResourceRequestUtil.make(
        bundle, label_selectors=[[(key, one_of, [value]) for key, value in selector.items()]]
    )


def demand(overlay: str) -> dict[str, list[ResourceRequest]]:
    """By deployment, what one replica of it asks for."""
    found = {}
    for deployment in declared(overlay)["applications"][0]["deployments"]:
        options = deployment["ray_actor_options"]
        if "placement_group_bundles" in deployment:
            (selector,) = deployment["placement_group_bundle_label_selector"]
            found[deployment["name"]] = [asked(bundle, selector) for bundle in deployment["placement_group_bundles"]]
        else:
            found[deployment["name"]] = [asked({"CPU": options["num_cpus"]}, options["label_selector"])]
    return found


def most(overlay: str) -> dict[str, int]:
    """By deployment, the most replicas at once; of routers one more, in an update."""
    fleet = fleet_of(overlay)
    engines = {engine_name(engine.name): engine.replicas.max for engine in fleet.engines}
    return {"router": fleet.router.replicas + 1} | engines


def scheduled(overlay: str, counts: dict[str, int]) -> SchedulingReply:
    """What the autoscaler does for so many replicas, beginning with no worker."""
    (spec,) = clusters(overlay)
    resource = {"metadata": {"name": "headrace", "namespace": "headrace"}, "spec": spec}
    config = AutoscalingConfig(_derive_autoscaling_config_from_ray_cr(resource), skip_content_hash=True)
    gangs = [
        GangResourceRequest(requests=requests)
        for name, requests in demand(overlay).items()
        for _ in range(counts.get(name, 0))
    ]
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_worker_nodes(),
        gang_resource_requests=gangs,
    )
    return ResourceDemandScheduler().schedule(request)


def launched(reply: SchedulingReply) -> Counter[str]:
    found: Counter[str] = Counter()
    for launch in reply.to_launch:
        found[launch.instance_type] += launch.count
    found.pop("headgroup", None)
    return found


def limits(overlay: str, end: str) -> dict[str, int]:
    (spec,) = clusters(overlay)
    return {group["groupName"]: group[end] for group in spec["workerGroupSpecs"] if group[end]}


def test_every_replica_gets_a_pod_at_the_busiest_and_no_pod_is_left_over(overlay: str) -> None:
    reply = scheduled(overlay, most(overlay))
    assert not reply.infeasible_gang_resource_requests
    assert launched(reply) == limits(overlay, "maxReplicas")


def test_without_demand_there_is_what_the_fleet_always_keeps(overlay: str) -> None:
    assert launched(scheduled(overlay, {})) == limits(overlay, "minReplicas")


def test_one_replica_too_many_is_never_put_where_another_belongs(overlay: str) -> None:
    for name in most(overlay):
        reply = scheduled(overlay, most(overlay) | {name: most(overlay)[name] + 1})
        short = {str(gang.requests[0].label_selectors) for gang in reply.infeasible_gang_resource_requests}
        assert short == {str(demand(overlay)[name][0].label_selectors)}
        assert launched(reply) <= Counter(limits(overlay, "maxReplicas"))
