"""How many replicas would Ray Serve's own law want, for the requests that are really there?

Serve counts requests that come through its handles; ours come over the link. So its default law (requests divided by
`target_ongoing_requests`) gets the means of what engines and routers report, over the same look-back. Bounds, factors
and delays follow, as always, in Serve.
"""

from typing import Any, Protocol


class Context(Protocol):
    """Of ray.serve.config.AutoscalingContext: what is read here."""

    target_num_replicas: int
    running_replicas: list[Any]
    aggregated_metrics: dict[str, dict[Any, float | None]] | None
    config: Any
    """Serve's AutoscalingConfig of the deployment."""


def by_serve(engine: Context, router: Context | None, model: str) -> float:
    """Replicas, as Serve's law has them, before its bounds. With none running: one for any request, else as before."""
    requests = _sum(engine, "running_requests", "waiting_requests")
    if router is not None:
        requests += _sum(router, f"queued_requests.{model}")
    if not engine.running_replicas:
        return max(engine.target_num_replicas, 1 if requests else 0)
    return requests / engine.config.get_target_ongoing_requests()


def _sum(context: Context, *names: str) -> float:
    """Over replicas; what none has reported lately is none."""
    metrics = context.aggregated_metrics or {}
    return sum(value or 0.0 for name in names for value in metrics.get(name, {}).values())
