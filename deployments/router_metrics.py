"""What does a router tell Prometheus?"""

from collections.abc import Callable, Iterable
from operator import attrgetter
from time import monotonic
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from autoscaling import Tally, Targets, Traffic
from deployments import tenant_metrics
from deployments.lane import Lane
from deployments.replica import Replica
from deployments.scaling_metrics import ScalingMetrics
from deployments.sender import ANYBODY, Sender
from deployments.tenant_metrics import Outcomes
from deployments.variant_metrics import VariantMetrics
from deployments.variants import Variants
from routing import Tier

FIRST_TOKEN_BUCKETS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
PER_TOKEN_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1)

REPLICA_GAUGES = {
    "running_requests": "Requests that the engine runs",
    "waiting_requests": "Requests in the engine's own queue",
    "kv_free_tokens": "Tokens that the KV cache has room for",
    "kv_tokens": "Tokens that the KV cache holds",
    "prefill_tokens_per_s": "Measured prefill rate",
    "decode_tokens_per_s": "Measured decode rate",
    "step_age_s": "Seconds since the last step of a busy engine",
    "draining": "1: takes nothing new",
}


class RouterMetrics:
    """Counters of one router; what lanes and replicas know themselves is read at each scrape."""

    def __init__(self, targets: Targets) -> None:
        """`targets`: what a request must meet to count as served well."""
        self.targets = targets
        self._tallies: dict[str, Tally] = {}
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "headrace_requests", "Requests by how they ended", ["model", "outcome"], registry=registry
        )
        self.outcomes = Outcomes(registry)
        """The same by tenant and tier, refused ones among them."""
        self.scaling = ScalingMetrics(registry)
        """What Serve's controller decided."""
        self._refusals = Counter("headrace_refusals", "Requests refused, by status", ["status"], registry=registry)
        self._open = Gauge("headrace_open_requests", "Requests being answered", ["model"], registry=registry)
        self._missed = Counter(
            "headrace_missed",
            "Requests that missed the fleet's targets, failed ones included",
            ["model"],
            registry=registry,
        )
        self._first = Histogram(
            "headrace_time_to_first_token_seconds",
            "From a complete request to its first token",
            ["model"],
            buckets=FIRST_TOKEN_BUCKETS_S,
            registry=registry,
        )
        self._per_token = Histogram(
            "headrace_time_per_output_token_seconds",
            "After the first token, of finished requests",
            ["model"],
            buckets=PER_TOKEN_BUCKETS_S,
            registry=registry,
        )

    def refused(self, status: int) -> None:
        """A request ended with an error body."""
        self._refusals.labels(str(status)).inc()

    def watch(self, model: str, prompt_tokens: int, by: Sender = ANYBODY) -> "Metered":
        """Follows one request that was let in."""
        self._tally(model).arrived(monotonic(), prompt_tokens)
        return Metered(self, model, by)

    def traffic(self, model: str) -> Traffic:
        """What came for a model lately, for the scaler."""
        return self._tally(model).traffic(monotonic())

    def _tally(self, model: str) -> Tally:
        return self._tallies.setdefault(model, Tally())

    def text(self, lanes: Iterable[Lane], variants: Iterable[Variants] = ()) -> bytes:
        """Everything, in Prometheus' text form."""
        seen = CollectorRegistry()
        seen.register(_Lanes(list(lanes)))
        seen.register(VariantMetrics(list(variants)))
        return generate_latest(self._registry) + generate_latest(seen)


class Metered:
    """One request's times, written once, at its end."""

    def __init__(self, metrics: RouterMetrics, model: str, by: Sender) -> None:
        self._metrics, self._model, self._by = metrics, model, by
        self._tally = metrics._tally(model)
        self._start_s = monotonic()
        self._first_s: float | None = None
        self._count = 0
        self._at_once = True  # all tokens came together: nobody saw when the first was made
        metrics._open.labels(model).inc()

    def tokens(self, count: int) -> None:
        """So many tokens have just arrived."""
        if self._first_s is None:
            self._first_s = monotonic()
        elif count:
            self._at_once = False
        self._count += count
        self._tally.made(count)

    def end(self, outcome: str) -> None:
        """`ok`, `failed` or `cancelled`."""
        metrics, model = self._metrics, self._model
        metrics._open.labels(model).dec()
        metrics._requests.labels(model, outcome).inc()
        metrics.outcomes.ended(model, self._by, outcome)
        self._judge(outcome)
        if self._first_s is None:
            return
        metrics._first.labels(model).observe(self._first_s - self._start_s)
        if self._count > 1 and outcome == "ok":
            metrics._per_token.labels(model).observe((monotonic() - self._first_s) / (self._count - 1))

    def _judge(self, outcome: str) -> None:
        """Tells the scaler how the request was served; one that its client left early tells nothing."""
        now_s, targets = monotonic(), self._metrics.targets
        first_s, after = self._first_s or now_s, max(0, self._count - 1)
        late = first_s - self._start_s > targets.ttft_s + (after * targets.token_s if self._at_once else 0.0)
        slow = now_s - first_s > after * targets.token_s and not self._at_once
        # Nobody waits for what is in tier batch.
        missed = outcome == "failed" or (self._by.tier is not Tier.BATCH and (late or (outcome == "ok" and slow)))
        if outcome != "ok":
            self._tally.broke_off(self._count)
        if outcome == "cancelled" and not missed:
            return
        self._tally.ended(now_s, whole=outcome == "ok", missed=missed)
        if missed:
            self._metrics._missed.labels(self._model).inc()


class _Lanes:
    """A collector, in prometheus_client's sense, over lanes as they are now."""

    def __init__(self, lanes: list[Lane]) -> None:
        self._lanes = lanes

    def collect(self) -> Iterable[Metric]:
        yield self._gauge("queued_requests", "Requests waiting in this router", lambda lane: lane.queued_requests)
        yield self._gauge("queued_tokens", "Their prompt tokens", lambda lane: lane.queued_tokens)
        yield self._counter("prompt_tokens", "Prompt tokens let in", lambda lane: lane.shares.prompt_tokens)
        yield self._counter("output_tokens", "Tokens generated", lambda lane: lane.shares.output_tokens)
        yield self._counter("retries", "Requests begun again on another replica", lambda lane: lane.retries)
        continued = "Streams that went on at another replica when theirs was lost"
        yield self._counter("continuations", continued, lambda lane: lane.continuations)
        yield from tenant_metrics.collect(self._lanes)
        for name, text in REPLICA_GAUGES.items():
            yield self._replica_gauge(name, text, attrgetter(f"load.{name}"))
        yield self._replica_gauge(
            "resting",
            "1: failed too often, gets no requests or one on trial",
            lambda replica: float(replica.health.until_s is not None),
        )
        yield self._replica_gauge(
            "verified",
            "1: its numbers agreed with a reference",
            lambda replica: float(replica.facts["verified"]),
        )

    def _gauge(self, name: str, text: str, value: Callable[[Lane], float]) -> Metric:
        return self._of_lanes(GaugeMetricFamily(f"headrace_{name}", text, labels=["model"]), value)

    def _counter(self, name: str, text: str, value: Callable[[Lane], float]) -> Metric:
        return self._of_lanes(CounterMetricFamily(f"headrace_{name}", text, labels=["model"]), value)

    def _of_lanes(self, family: Any, value: Callable[[Lane], float]) -> Metric:
        for lane in self._lanes:
            family.add_metric([lane.model], value(lane))
        return family

    def _replica_gauge(self, name: str, text: str, value: Callable[[Replica], float]) -> Metric:
        family = GaugeMetricFamily(f"headrace_replica_{name}", text, labels=["model", "replica"])
        for lane in self._lanes:
            for replica in lane.replicas.values():
                family.add_metric([lane.model, replica.id], value(replica))
        return family
