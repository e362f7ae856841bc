"""What does a run say of itself: its replicas by Serve, their load and the queues by its router?"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from cluster.runs import Run
from headrace.serve_rest import ServeRest

ENGINE_PREFIX = "engine-"
REPLICA = "headrace_replica_"
OF_MODEL = {
    "headrace_queued_requests": "queued_requests",
    "headrace_open_requests": "open_requests",
    "headrace_output_tokens_total": "output_tokens",
}


@dataclass(slots=True)
class Replica:
    """One engine replica; a load figure is missing while the router doesn't know the replica."""

    state: str
    load: dict[str, float] = field(default_factory=dict)
    """By the router's names, such as `running_requests`."""


@dataclass(slots=True)
class Served:
    """One model: its replicas by id, and the router's counts."""

    replicas: dict[str, Replica] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    """`queued_requests`, `open_requests`, `output_tokens` (since the router started)."""


def observe(run: Run, rest: ServeRest) -> dict[str, Served]:
    """Every model of a run, by name. What doesn't answer is left out."""
    served = {model: Served() for model in run.models}
    for application in rest.applications().values():
        for name, deployment in application["deployments"].items():
            model = name.removeprefix(ENGINE_PREFIX)
            if model != name and model in served:
                _add_replicas(served[model], deployment)
    _add_metrics(served, _scrape(run.url))
    return served


def _add_replicas(served: Served, deployment: dict[str, Any]) -> None:
    for replica in deployment["replicas"]:
        served.replicas[replica["replica_id"]] = Replica(state=replica["state"].lower())


def _scrape(url: str) -> str:
    try:
        return httpx.get(f"{url}/metrics", timeout=5.0, trust_env=False).raise_for_status().text
    except httpx.HTTPError:
        return ""


def _add_metrics(served: dict[str, Served], text: str) -> None:
    for sample in samples(text):
        model = served.get(sample.labels.get("model", ""))
        if model is None:
            continue
        if sample.name in OF_MODEL:
            model.counts[OF_MODEL[sample.name]] = sample.value
        elif sample.name.startswith(REPLICA) and sample.labels["replica"] in model.replicas:
            load = model.replicas[sample.labels["replica"]].load
            load[sample.name.removeprefix(REPLICA)] = sample.value


def samples(text: str) -> Iterator[Sample]:
    """Those of a page of metrics."""
    for family in text_string_to_metric_families(text):
        yield from family.samples
