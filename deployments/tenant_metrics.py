"""What does a router tell Prometheus of tenants and tiers?

Labels are names of fleet.yaml and tiers, never keys: there are no more series than models times tenants times tiers.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)

import routing
from deployments.lane import Lane
from deployments.openai_wire import ApiError
from deployments.sender import Sender
from deployments.shares import WAITS_S, Share

SENDER = ["model", "tenant", "tier"]


class Outcomes:
    """Requests by how they ended."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "headrace_tenant_requests", "Requests by how they ended", [*SENDER, "outcome"], registry=registry
        )

    def ended(self, model: str, by: Sender, outcome: str) -> None:
        """`ok`, `failed`, `cancelled` or `refused`."""
        self._requests.labels(model, by.tenant, tier(by.tier), outcome).inc()

    @contextmanager
    def door(self, model: str, by: Sender) -> Iterator[None]:
        """A request comes in here, or counts as refused: ApiError passes."""
        try:
            yield
        except ApiError:
            self.ended(model, by, "refused")
            raise


def tier(of: routing.Tier) -> str:
    """As fleet.yaml writes it."""
    return of.name.lower()


def collect(lanes: Iterable[Lane]) -> Iterator[Metric]:
    """What lanes know, as it is now."""
    read = CounterMetricFamily("headrace_tenant_prompt_tokens", "Prompt tokens let in", labels=SENDER)
    made = CounterMetricFamily("headrace_tenant_output_tokens", "Tokens generated", labels=SENDER)
    queued = GaugeMetricFamily("headrace_tenant_queued_requests", "Requests waiting in this router", labels=SENDER)
    waits = SummaryMetricFamily("headrace_tenant_wait_seconds", "From arrival to a replica", labels=SENDER)
    by_tier = HistogramMetricFamily("headrace_wait_seconds", "From arrival to a replica", labels=["model", "tier"])
    for lane in lanes:
        for (tenant, its), share in lane.shares.by_sender.items():
            sender = [lane.model, tenant, tier(its)]
            read.add_metric(sender, share.prompt_tokens)
            made.add_metric(sender, share.output_tokens)
            queued.add_metric(sender, lane.queued_of(tenant, its))
            waits.add_metric(sender, count_value=sum(share.waits), sum_value=share.waited_s)
        for its in routing.Tier:
            shares = [share for (_, other), share in lane.shares.by_sender.items() if other is its]
            if shares:
                _add_waits(by_tier, [lane.model, tier(its)], shares)
    yield from (read, made, queued, waits, by_tier)


def _add_waits(family: HistogramMetricFamily, labels: list[str], shares: list[Share]) -> None:
    counts = accumulate(map(sum, zip(*(share.waits for share in shares), strict=True)))
    bounds = [*map(str, map(float, WAITS_S)), "+Inf"]
    family.add_metric(labels, list(zip(bounds, counts, strict=True)), sum(share.waited_s for share in shares))
