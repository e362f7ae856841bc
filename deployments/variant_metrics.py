"""What does a router tell Prometheus of variants?

Everywhere else the label `model` is what an engine deployment serves, such as `m-w4`: here it is joined with `of`, the
model that clients ask for.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from deployments.variants import Variants


@dataclass(eq=False, slots=True)
class VariantMetrics:
    """A collector, in prometheus_client's sense, over variants as they are now."""

    variants: list[Variants]
    """Of each model that has any."""

    def collect(self) -> Iterable[Metric]:
        labels = ["of", "variant", "model"]
        quality = GaugeMetricFamily("headrace_variant_quality", "Share of its model's quality", labels=labels)
        chosen = CounterMetricFamily(
            "headrace_variant_requests", "Requests sent to a variant, by the reason", labels=[*labels, "why"]
        )
        for variants in self.variants:
            for one in variants.served:
                quality.add_metric([variants.model, one.name, one.lane.model], one.quality)
            lanes = {one.name: one.lane.model for one in variants.served}
            for (name, why), count in variants.chosen.items():
                chosen.add_metric([variants.model, name, lanes[name], why], count)
        yield from (quality, chosen)
